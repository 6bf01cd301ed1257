//! A user's own program as an integrand: it runs once, reads points from its standard input and writes values to its
//! standard output.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kc_core::{Error, Result};
use kc_qmc::Integrand;

/// The longest line that a program may write.
const MOST_BYTES: u64 = 1 << 20;

/// How long a program may take to end after its input has.
const PATIENCE: Duration = Duration::from_secs(5);

/// Splits a command line into words: blanks separate, quotes and backslashes keep together, nothing is expanded.
pub(super) fn words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    let unfinished = |what: &str| Error::argument("command", format!("a closing {what}"), line);
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(unfinished("single quote")),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err(unfinished("double quote")),
                        },
                        Some(c) => word.push(c),
                        None => return Err(unfinished("double quote")),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next().ok_or_else(|| unfinished("character"))?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.is_empty() { Err(Error::empty("command")) } else { Ok(words) }
}

/// A running program, as an integrand on the unit cube.
pub(super) struct Program {
    line: String,
    dim: usize,
    outputs: usize,
    state: Mutex<State>,
}

struct State {
    child: Child,
    input: Option<BufWriter<ChildStdin>>,
    output: BufReader<ChildStdout>,
    /// Batches begun.
    batches: u64,
}

impl Program {
    /// Starts the program of a command line.
    ///
    /// # Errors
    /// A line without words; a program that cannot be started.
    pub(super) fn start(line: &str, dim: usize, outputs: usize) -> Result<Self> {
        if outputs == 0 || dim == 0 {
            let (name, got) = if dim == 0 { ("dim", dim) } else { ("outputs", outputs) };
            return Err(Error::argument(name, "1 or more", got));
        }
        let words = words(line)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| Error::io(&words[0], &error))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::empty("pipes of the command"));
        };
        let state = State {
            child,
            input: Some(BufWriter::with_capacity(1 << 16, input)),
            output: BufReader::with_capacity(1 << 16, output),
            batches: 0,
        };
        Ok(Self { line: line.to_owned(), dim, outputs, state: Mutex::new(state) })
    }

    /// Says that there are no more points, and waits for the end of the program.
    pub(super) fn finish(self) -> std::io::Result<ExitStatus> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut input) = state.input.take() {
            // A program that has closed its input does not need to be told.
            let _ = writeln!(input, "0 {}", self.dim).and_then(|()| input.flush());
        }
        state.wait()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Whatever went wrong, no process stays behind.
        self.input = None;
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl State {
    /// Waits a while, then ends the program.
    fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                self.child.kill()?;
                return self.child.wait();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Writes a batch on another thread while this one reads the answers: neither side can wait for the other.
    fn batch(&mut self, u: &[f64], dim: usize, outputs: usize, out: &mut [f64]) -> Result<()> {
        let rows = u.len() / dim;
        let batch = self.batches;
        self.batches += 1;
        let failed = |message: String| Error::parse(format!("command: batch {batch}"), message);
        let Some(input) = self.input.as_mut() else { return Err(failed("the input is closed".into())) };
        let output = &mut self.output;
        let (written, read) = std::thread::scope(|scope| {
            let writer = scope.spawn(move || -> std::io::Result<()> {
                writeln!(input, "{rows} {dim}")?;
                for point in u.chunks_exact(dim) {
                    for (j, x) in point.iter().enumerate() {
                        write!(input, "{}{x:?}", if j == 0 { "" } else { " " })?;
                    }
                    input.write_all(b"\n")?;
                }
                input.flush()
            });
            let read = read_values(output, rows, outputs, out);
            if read.is_err() {
                // The writer may wait for a reader that is gone or does not read: end it.
                let _ = self.child.kill();
            }
            (writer.join(), read)
        });
        match (read, written) {
            (Ok(()), Ok(Ok(()))) => Ok(()),
            (Ok(()), Ok(Err(error))) => Err(failed(format!("cannot write the points: {error}"))),
            (Ok(()), Err(_)) => Err(failed("cannot write the points".into())),
            (Err(Trouble::Wrong(message)), _) => Err(failed(message)),
            (Err(Trouble::End(line)), _) => {
                let status = self.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(failed(format!("the program ended ({status}) after {line} of {rows} lines")))
            }
        }
    }
}

/// Why values could not be read.
enum Trouble {
    /// The program's output ended after so many lines.
    End(usize),
    Wrong(String),
}

/// Reads one line of `outputs` numbers per row into `out`, shape (outputs, rows).
fn read_values(
    output: &mut BufReader<ChildStdout>,
    rows: usize,
    outputs: usize,
    out: &mut [f64],
) -> Result<(), Trouble> {
    let mut line = Vec::new();
    for row in 0..rows {
        line.clear();
        let wrong = |message: String| Trouble::Wrong(format!("line {}: {message}", row + 1));
        match output.by_ref().take(MOST_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => return Err(Trouble::End(row)),
            Ok(count) if count as u64 == MOST_BYTES => {
                return Err(wrong(format!("expected at most {MOST_BYTES} bytes")));
            }
            Ok(_) => {}
            Err(error) => return Err(wrong(error.to_string())),
        }
        let text = std::str::from_utf8(&line).map_err(|_| wrong("expected text".into()))?;
        let mut count = 0;
        for word in text.split_ascii_whitespace() {
            let value: f64 = word.parse().map_err(|_| wrong(format!("expected a number, got {word:?}")))?;
            if count < outputs {
                out[count * rows + row] = value;
            }
            count += 1;
        }
        if count != outputs {
            return Err(wrong(format!("expected {outputs} numbers, got {count}")));
        }
    }
    Ok(())
}

impl Integrand for Program {
    fn dim(&self) -> usize {
        self.dim
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn evaluate(&self, u: &[f64], _active: &[bool], out: &mut [f64]) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.batch(u, self.dim, self.outputs, out)
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("command {} dim {} outputs {}", self.line, self.dim, self.outputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_a_shell_would() {
        let split = |line| words(line).unwrap();
        assert_eq!(split("awk  -f prog.awk"), ["awk", "-f", "prog.awk"]);
        assert_eq!(split(r#"awk '{print $1 "x"}' a\ b """#), ["awk", r#"{print $1 "x"}"#, "a b", ""]);
        assert_eq!(split(r#"a"b c"'d e' "\"\n""#), ["ab cd e", r#""\n"#]);
        for line in ["", "  ", "a 'b", "a \"b", "a \\"] {
            assert!(words(line).is_err(), "{line}");
        }
    }
}
