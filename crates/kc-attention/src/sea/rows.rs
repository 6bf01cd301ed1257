//! From the estimate of a query to its sparse attention, row by row, in f32.

use kc_core::math::{Function, apply_in_place, first_non_finite, sum_with};
use kc_core::{Error, Result};

use super::Group;
use super::plan::Plan;
use super::portable::{dispatch, mix, scores};
use super::stretch::{edge, open};
use super::topk::{Selector, count_of_head, count_of_query};

/// The chosen columns of some rows.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    selector: Selector,
    cells: Vec<u32>,
    /// Columns of every (row, head), one after the other, and where each ends.
    cols: Vec<u32>,
    ends: Vec<usize>,
    raw: Vec<f32>,
}

impl Chosen {
    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.cols.clear();
        self.ends.clear();
    }

    /// Entries of all rows.
    pub(super) fn entries(&self) -> usize {
        self.cols.len()
    }

    /// Adds a row without columns.
    pub(super) fn push_empty(&mut self, heads: usize) {
        self.ends.extend((0..heads).map(|_| self.cols.len()));
    }

    /// Adds a row of `width` columns: those of the largest cells of `prob` `[H, t_m]`. Inputs beyond what f32 can square
    /// show here, as probabilities that are not numbers.
    pub(super) fn push(&mut self, plan: &Plan, prob: &[f32], width: usize) -> Result<()> {
        if let Some(at) = first_non_finite(prob) {
            return Err(Error::not_finite("prob", &[at], f64::from(prob[at])));
        }
        let config = &plan.config;
        let (h, t_m, span) = (config.heads, config.t_m, config.span());
        self.cells.clear();
        if config.group == Group::Query {
            let many = count_of_head(config, width);
            for (head, prob) in prob.chunks_exact(t_m).enumerate() {
                let first = self.cells.len();
                self.selector.cells(plan.isa, prob, many, &mut self.cells);
                self.cells[first..].iter_mut().for_each(|cell| *cell += (head * t_m) as u32);
            }
        } else {
            self.selector.cells(plan.isa, prob, count_of_query(config, width), &mut self.cells);
        }
        let mut at = 0;
        for head in 0..h {
            while let Some(&id) = self.cells.get(at)
                && (id as usize) < (head + 1) * t_m
            {
                let b = id as usize - head * t_m;
                open(edge(b, width, t_m), edge(b + 1, width, t_m), span, 0, &mut self.cols);
                at += 1;
            }
            self.ends.push(self.cols.len());
        }
        Ok(())
    }

    /// Sparse attention of all rows in one head, times its gates `[rows, 2]`: rows of `out` from queries, keys and values
    /// of that head.
    pub(super) fn attend(
        &mut self,
        plan: &Plan,
        head: usize,
        [queries, keys, values]: [&[f32]; 3],
        gates: &[f32],
        out: &mut [f32],
    ) -> Result<()> {
        let (h, d) = (plan.config.heads, plan.config.head_dim);
        let scale = plan.config.score_scale() as f32;
        let rows = queries.chunks_exact(d).zip(gates.chunks_exact(2)).zip(out.chunks_exact_mut(d));
        for (t, ((q, gate), out)) in rows.enumerate() {
            let part = t * h + head;
            let start = if part == 0 { 0 } else { self.ends[part - 1] };
            let cols = &self.cols[start..self.ends[part]];
            if cols.is_empty() {
                out.fill(0.0);
                continue;
            }
            self.raw.resize(cols.len(), 0.0);
            let weights = &mut self.raw;
            scores(plan.isa, q, keys, cols, scale, weights);
            dispatch!(plan.isa, lower(weights, cols.len()));
            apply_in_place(plan.isa, Function::Exp, weights);
            mix(plan.isa, weights, values, cols, out);
            let sum = sum_with(plan.isa, weights);
            if !sum.is_finite() {
                return Err(Error::not_finite("scores", &[head, t], f64::from(sum)));
            }
            let share = if plan.config.partial_scaler { gate[0] * gate[1] } else { gate[1] };
            let share = share / sum;
            out.iter_mut().for_each(|out| *out *= share);
        }
        Ok(())
    }
}
