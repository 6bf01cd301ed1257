//! `NAME[:k=v,..]`: how measures and integrands are named, with parameters from the command line and from a file.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use kc_core::{Error, Result};
use serde_json::{Map, Value};

/// A name with parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    name: String,
    parameters: Map<String, Value>,
}

/// Splits at a character where no bracket is open.
fn split_outside(text: &str, at: char) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            c if c == at && depth == 0 => {
                parts.push(&text[start..i]);
                start = i + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

impl FromStr for Named {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::argument("name", "NAME or NAME:key=value,key=value", text);
        let mut parts = split_outside(text, ':').into_iter();
        let name = parts.next().unwrap_or_default().trim();
        let rest = parts.collect::<Vec<_>>().join(":");
        if name.is_empty() {
            return Err(refused());
        }
        let mut parameters = Map::new();
        for part in split_outside(&rest, ',').into_iter().filter(|part| !part.trim().is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(refused)?;
            let (key, value) = (key.trim(), value.trim());
            if key.is_empty() || parameters.contains_key(key) {
                return Err(refused());
            }
            parameters.insert(key.to_owned(), parsed(value));
        }
        Ok(Self { name: name.to_owned(), parameters })
    }
}

/// A number or a list in JSON; any other text as it is.
fn parsed(text: &str) -> Value {
    let number = || text.parse::<f64>().ok().filter(|x| x.is_finite()).map(Value::from);
    serde_json::from_str(text).ok().or_else(number).unwrap_or_else(|| Value::from(text))
}

impl Named {
    /// The name in lower case, with `_` for `-` and blanks.
    pub(crate) fn name(&self) -> String {
        self.name.to_lowercase().replace(['-', ' '], "_")
    }

    /// Adds the parameters of a JSON file, an object. Those of the command line count more.
    pub(crate) fn with_file(mut self, path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(self) };
        let value = kc_io::json::read(path)?;
        let Value::Object(object) = value else {
            return Err(
                Error::parse(path.display().to_string(), "expected a JSON object of parameters").into()
            );
        };
        for (key, value) in object {
            self.parameters.entry(key).or_insert(value);
        }
        Ok(self)
    }

    /// From an object with the name under `key` and the parameters beside it, or from a text `NAME[:k=v,..]`.
    pub(crate) fn from_json(value: &Value, key: &str) -> Result<Self> {
        match value {
            Value::String(text) => text.parse(),
            Value::Object(object) => {
                let mut parameters = object.clone();
                let Some(Value::String(name)) = parameters.shift_remove(key) else {
                    return Err(Error::argument(
                        key.to_owned(),
                        format!("an object with a name under {key:?}"),
                        value,
                    ));
                };
                let mut named: Named = name.parse()?;
                parameters.append(&mut named.parameters);
                Ok(Self { name: named.name, parameters })
            }
            other => Err(Error::argument(key.to_owned(), "a name or an object", other)),
        }
    }

    /// With the parameters of another name but these, unless they are there.
    pub(crate) fn with_others(mut self, other: &Named, but: &[&str]) -> Self {
        for (key, value) in other.parameters.iter().filter(|(key, _)| !but.contains(&key.as_str())) {
            self.parameters.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    /// To read the parameters.
    pub(crate) fn read(&self) -> Parameters<'_> {
        Parameters { named: self, used: RefCell::default() }
    }
}

/// The parameters of a name, which remember what has been read.
#[derive(Debug)]
pub(crate) struct Parameters<'a> {
    named: &'a Named,
    used: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Parameters<'a> {
    /// The value under the first of the keys that is there.
    pub(crate) fn value(&self, keys: &[&str]) -> Option<&'a Value> {
        let found = self.named.parameters.iter().find(|(key, _)| keys.contains(&key.as_str()));
        found.map(|(key, value)| {
            self.used.borrow_mut().insert(key);
            value
        })
    }

    fn refused(&self, keys: &[&str], expected: &str, got: &Value) -> Error {
        Error::argument(format!("{}.{}", self.named.name, keys[0]), expected, got)
    }

    /// A number. The texts `inf` and `-inf` are numbers too.
    pub(crate) fn number(&self, keys: &[&str]) -> Result<Option<f64>> {
        let Some(value) = self.value(keys) else { return Ok(None) };
        as_number(value).map(Some).ok_or_else(|| self.refused(keys, "a number", value))
    }

    /// A number that has to be there.
    pub(crate) fn needed_number(&self, keys: &[&str]) -> Result<f64> {
        self.number(keys)?.ok_or_else(|| self.refused(keys, "a number", &Value::Null))
    }

    /// Numbers in one row: a number, a list, or lists of lists.
    pub(crate) fn numbers(&self, keys: &[&str]) -> Result<Option<Vec<f64>>> {
        let Some(value) = self.value(keys) else { return Ok(None) };
        let mut list = Vec::new();
        flatten(value, &mut list).map(|()| Some(list)).ok_or_else(|| self.refused(keys, "numbers", value))
    }

    /// Numbers that have to be there.
    pub(crate) fn needed_numbers(&self, keys: &[&str]) -> Result<Vec<f64>> {
        self.numbers(keys)?.ok_or_else(|| self.refused(keys, "numbers", &Value::Null))
    }

    /// A whole number that is not negative.
    pub(crate) fn whole(&self, keys: &[&str]) -> Result<Option<u64>> {
        let Some(value) = self.value(keys) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| self.refused(keys, "a whole number", value))
    }

    /// One of several words, in any case; the first is the default.
    pub(crate) fn choice<T: Copy>(&self, keys: &[&str], choices: &[(&str, T)]) -> Result<T> {
        let Some(value) = self.value(keys) else { return Ok(choices[0].1) };
        let word = value.as_str().unwrap_or_default().to_lowercase().replace(['-', '_', ' '], "");
        let found = choices.iter().find(|(name, _)| *name == word);
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        found
            .map(|(_, choice)| *choice)
            .ok_or_else(|| self.refused(keys, &format!("one of {}", names.join(", ")), value))
    }

    /// A list, or a single value as a list of one.
    pub(crate) fn list(&self, keys: &[&str]) -> Option<Vec<&'a Value>> {
        self.value(keys).map(|value| match value {
            Value::Array(list) => list.iter().collect(),
            single => vec![single],
        })
    }

    /// Refuses parameters that nobody has read.
    pub(crate) fn finish(&self) -> Result<()> {
        let used = self.used.borrow();
        match self.named.parameters.keys().find(|key| !used.contains(key.as_str())) {
            None => Ok(()),
            Some(key) => Err(Error::argument(self.named.name.clone(), "only parameters that it has", key)),
        }
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_f64(),
    }
}

fn flatten(value: &Value, list: &mut Vec<f64>) -> Option<()> {
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| flatten(value, list)),
        // `a;b;c` spares quotes on command lines.
        Value::String(text) => text.split(';').try_for_each(|part| {
            list.push(part.trim().parse().ok()?);
            Some(())
        }),
        other => {
            list.push(as_number(other)?);
            Some(())
        }
    }
}
