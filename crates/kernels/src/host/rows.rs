//! How the rows of an operation are shared out to threads.

use std::ops::Range;

use rayon::prelude::*;

/// Fewer elements than this are not worth waking a thread for.
const ELEMENTS_PER_TASK: usize = 16 * 1024;

/// Tasks for each thread: more than one evens out threads that the machine slows down.
const TASKS_PER_THREAD: usize = 4;

/// How many rows of this width to give to a task.
pub(crate) fn rows_per_task(rows: usize, width: usize) -> usize {
    let worth = ELEMENTS_PER_TASK.div_ceil(width.max(1));
    let fair = rows.div_ceil(TASKS_PER_THREAD * rayon::current_num_threads());
    worth.max(fair).max(1)
}

/// Fills `out`, some rows at a time: `fill` gets the number of the first row and the rows themselves.
pub(crate) fn fill_rows(out: &mut [f32], width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = out.len() / width.max(1);
    let step = rows_per_task(rows, width);
    if step >= rows {
        return fill(0, out);
    }
    out.par_chunks_mut(step * width)
        .enumerate()
        .for_each(|(task, rows)| fill(task * step, rows));
}

/// [`fill_rows`] for two results of equal shape.
pub(crate) fn fill_two(
    a: &mut [f32],
    b: &mut [f32],
    width: usize,
    fill: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    let rows = a.len() / width.max(1);
    let step = rows_per_task(rows, width);
    if step >= rows {
        return fill(0, a, b);
    }
    a.par_chunks_mut(step * width)
        .zip(b.par_chunks_mut(step * width))
        .enumerate()
        .for_each(|(task, (a, b))| fill(task * step, a, b));
}

/// [`fill_rows`] for three results of equal shape, element by element.
pub(crate) fn fill_three(
    a: &mut [f32],
    b: &mut [f32],
    c: &mut [f32],
    fill: impl Fn(usize, &mut [f32], &mut [f32], &mut [f32]) + Sync,
) {
    let step = rows_per_task(a.len(), 1);
    if step >= a.len() {
        return fill(0, a, b, c);
    }
    a.par_chunks_mut(step)
        .zip(b.par_chunks_mut(step))
        .zip(c.par_chunks_mut(step))
        .enumerate()
        .for_each(|(task, ((a, b), c))| fill(task * step, a, b, c));
}

/// The element-wise sum, over all rows, of what `part` gives for some of them.
pub(crate) fn sum_over_rows(
    rows: usize,
    width: usize,
    part: impl Fn(Range<usize>) -> Vec<f32> + Sync,
) -> Vec<f32> {
    let step = rows_per_task(rows, width);
    // Collected in order and then added: the sum does not depend on which thread was first.
    let parts: Vec<Vec<f32>> = (0..rows.div_ceil(step).max(1))
        .into_par_iter()
        .map(|task| part(task * step..rows.min((task + 1) * step)))
        .collect();
    parts
        .into_iter()
        .reduce(|mut sum, part| {
            sum.iter_mut()
                .zip(part)
                .for_each(|(sum, part)| *sum += part);
            sum
        })
        .unwrap_or_default()
}
