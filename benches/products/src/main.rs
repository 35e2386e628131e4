//! Libraries for f32 products on the shapes of the training steps, in turn; see README.md.

mod libraries;

use std::hint::black_box;
use std::time::{Duration, Instant};

use libraries::{LIBRARIES, Product, Run};

/// Rows, inner size and columns.
const SHAPES: [[usize; 3]; 8] = [
    [1024, 384, 384],
    [1024, 384, 1536],
    [1024, 1536, 384],
    [512, 768, 2304],
    [512, 768, 3072],
    [2048, 384, 1536],
    [2048, 2048, 2048],
    [1024, 384, 8],
];
const ROUNDS: usize = 11;

/// A library runs this long before it is measured. By then its threads have spread over the cores, and those of the library
/// before have stopped waiting actively for more work: OpenBLAS's take 30 ms.
const WARM_UP: Duration = Duration::from_millis(60);

/// One figure is the mean over as many products as this needs.
const FLOPS_PER_FIGURE: usize = 1_000_000_000;

fn main() {
    let names: Vec<_> = LIBRARIES.iter().map(|(name, _)| *name).collect();
    let threads = rayon::current_num_threads();
    println!(
        "GFLOP/s, best/median of {ROUNDS} rounds, {threads} threads; `t`: the right side is transposed.\n"
    );
    println!("| m x k x n | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for [m, k, n] in SHAPES {
        for transposed in [false, true] {
            let mark = if transposed { " t" } else { "" };
            print!("| {m} x {k} x {n}{mark} |");
            for [best, median] in measure([m, k, n], transposed) {
                print!(" {best:.0}/{median:.0} |");
            }
            println!();
        }
    }
}

/// Best and median rate of each library.
fn measure([m, k, n]: [usize; 3], transposed: bool) -> Vec<[f64; 2]> {
    let (a, b) = (numbers(m * k), numbers(k * n));
    let mut out = vec![0.0; m * n];
    let product = Product::new([m, k, n], &a, &b, transposed, &mut out);
    check(&product);
    let flops = 2 * m * k * n;
    let mut rates = vec![Vec::with_capacity(ROUNDS); LIBRARIES.len()];
    for _ in 0..ROUNDS {
        for ((_, run), rates) in LIBRARIES.iter().zip(&mut rates) {
            rates.push(rate(*run, &product, flops));
        }
    }
    let summary = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        [rates[ROUNDS - 1], rates[ROUNDS / 2]]
    };
    rates.into_iter().map(summary).collect()
}

/// In GFLOP/s.
fn rate(run: Run, product: &Product, flops: usize) -> f64 {
    let repeats = FLOPS_PER_FIGURE.div_ceil(flops);
    let started = Instant::now();
    while started.elapsed() < WARM_UP {
        run(product);
    }
    let started = Instant::now();
    for _ in 0..repeats {
        run(black_box(product));
    }
    (flops * repeats) as f64 / started.elapsed().as_secs_f64() / 1e9
}

/// # Panics
/// If the libraries do not agree.
fn check(product: &Product) {
    let results = LIBRARIES.map(|(name, run)| {
        product.clear();
        run(product);
        (name, product.result())
    });
    let (_, first) = &results[0];
    for (name, result) in &results[1..] {
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-3;
        assert!(first.iter().zip(result).all(close), "{name} differs");
    }
}

fn numbers(count: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0;
    (0..count).map(number).collect()
}
