//! Seconds and GFLOP/s of single kernels at the sizes of Stable Diffusion and of the bundled model.

#![expect(clippy::print_stdout, reason = "a program that is read in a terminal")]

use std::hint::black_box;
use std::time::Instant;

use excite_kernels::{Attention, ChannelNorm, Conv, GroupNorm, geglu, instructions};

fn main() {
    let set = instructions();
    println!("{set}, {} threads", rayon::current_num_threads());
    for (b, c, o, side, size, stride) in [
        (1, 320, 320, 64, 3, 1),
        (1, 640, 640, 32, 3, 1),
        (1, 1280, 1280, 16, 3, 1),
        (1, 1280, 1280, 8, 3, 1),
        (1, 320, 320, 64, 3, 2),
        (1, 320, 320, 64, 1, 1),
        (1, 640, 5120, 32, 1, 1),
        (1, 1280, 1280, 16, 1, 1),
        (2, 64, 64, 16, 3, 1),
        (2, 128, 128, 8, 3, 1),
        (2, 64, 64, 16, 1, 1),
    ] {
        let x = vec![0.5f32; b * c * side * side];
        for winograd in [false, true] {
            if winograd && (size, stride) != (3, 1) {
                continue;
            }
            let kernel = vec![0.01f32; o * c * size * size];
            let conv = Conv::new(&kernel, None, (c, o), (size, stride, size / 2), winograd);
            let name = format!("conv {b}x{c}->{o} {side} k{size} s{stride} winograd {winograd}");
            let (h, w) = conv.result((side, side));
            let flops = 2. * (b * c * o * size * size * h * w) as f64;
            time(&name, flops, || conv.forward(set, &x, (side, side), None, None));
            let g = vec![0.1f32; b * o * h * w];
            time("  input gradient", flops, || conv.input_gradient(set, &g, (side, side)));
        }
    }
    for (b, heads, d, n, m) in
        [(1, 8, 40, 4096, 4096), (1, 8, 80, 1024, 1024), (1, 8, 40, 4096, 77), (2, 4, 16, 256, 256)]
    {
        let q = vec![0.1f32; b * heads * d * n];
        let k = vec![0.1f32; b * heads * d * m];
        let attention = Attention { heads, channels: d };
        let flops = 4. * (b * heads * d * n * m) as f64;
        time(&format!("attention {b}x{heads}x{d} {n} {m}"), flops, || {
            attention.forward(set, (&q, &k, &k), (n, m))
        });
        let attended = attention.forward(set, (&q, &k, &k), (n, m));
        if n == m {
            time("  gradients", 2. * flops, || {
                attention.gradients(
                    set,
                    (&q, &k, &k),
                    (n, m),
                    (&attended.values, &attended.logarithms),
                    &q,
                )
            });
        }
    }
    let x = vec![0.5f32; 320 * 4096];
    let ones = vec![1f32; 320];
    let norm = GroupNorm::new(ones.clone(), ones.clone(), 32, 1e-5, true);
    time("group norm silu 320x4096", x.len() as f64, || norm.forward(set, &x, 4096));
    time("  gradient", x.len() as f64, || norm.input_gradient(set, &x, &x, 4096));
    let norm = ChannelNorm::new(ones.clone(), ones, 1e-5);
    time("channel norm 320x4096", x.len() as f64, || norm.forward(set, &x, 4096));
    time("geglu 160x4096", x.len() as f64, || geglu(set, &x, 160 * 4096));
}

fn time<R>(name: &str, work: f64, mut run: impl FnMut() -> R) {
    let mut best = f64::MAX;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        black_box(run());
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name:<48} {:>9.3} ms {:>8.1} G/s", best * 1e3, work / best / 1e9);
}
