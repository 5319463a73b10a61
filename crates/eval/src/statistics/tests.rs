//! Against NumPy 2.4: the same generator written in Python chooses the prompts, everything else is
//! NumPy's (`concatenate(...).mean()`, `std`, `percentile(..., [2.5, 97.5])`; the area by comparing
//! each pair). 1,000 resamples, except where it says otherwise.

use super::*;

const PROMPTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Two images of the first prompt, seven of the last: each with its prompt's and its own number.
fn images() -> impl Iterator<Item = (usize, usize)> {
    (0..PROMPTS.len()).flat_map(|prompt| (0..2 + prompt).map(move |image| (prompt, image)))
}

fn value((prompt, image): (usize, usize)) -> f64 {
    0.30 + 0.01 * prompt as f64 + 0.007 * ((7 * image + 3 * prompt) % 5) as f64
}

fn near(got: Interval, want: [f64; 3]) {
    let got = [got.value, got.low, got.high];
    assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12), "{got:?}");
}

#[test]
fn mean_deviation_and_interval_are_numpys() {
    let values: Vec<f64> = images().map(value).collect();
    assert!((mean(&values).unwrap() - 0.3436666666666667).abs() < 1e-15);
    assert!((deviation(&values).unwrap() - 0.019281539818639424).abs() < 1e-15);
    let clustered = || images().map(|image| (PROMPTS[image.0], value(image)));
    let got = clustered_mean(clustered(), 1000).unwrap();
    near(got, [0.3436666666666667, 0.3263157894736842, 0.3545007352941177]);
    // Another generator (NumPy's PCG64, seed 1) and 20,000 resamples: the same interval, nearly.
    let got = clustered_mean(clustered(), 20_000).unwrap();
    assert!((got.low - 0.32631578947368417).abs() < 3e-4, "{got:?}");
    assert!((got.high - 0.3546).abs() < 3e-4, "{got:?}");
}

#[test]
fn the_order_of_images_does_not_matter_and_neither_do_names() {
    let of = |name: fn(usize) -> String, backwards: bool| {
        let mut values: Vec<_> = images().map(|image| (name(image.0), 2_f64)).collect();
        if backwards {
            values.reverse();
        }
        clustered_mean(values.iter().map(|(name, value)| (name.as_str(), *value)), 50).unwrap()
    };
    near(of(|k| format!("a cat and a {k}"), false), [2., 2., 2.]);
    near(of(|k| format!("{k}"), true), [2., 2., 2.]);
    let forwards: Vec<_> = images().map(|image| (PROMPTS[image.0], image.1 as f64)).collect();
    let backwards = forwards.iter().rev().copied();
    let (one, other) =
        (clustered_mean(forwards.iter().copied(), 50), clustered_mean(backwards, 50));
    assert_eq!(one, other);
}

#[test]
fn a_ratio_skips_resamples_without_anything_to_divide_by() {
    let parts = [("a", 1., 0.), ("b", 2., 4.), ("c", 0., 3.)];
    near(ratio(parts, 1000).unwrap(), [0.42857142857142855, 0., 1.]);
    assert_eq!(ratio([("a", 1., 0.)], 1000), None);
    assert_eq!(ratio([], 1000), None);
    near(ratio(parts, 0).unwrap(), [3. / 7.; 3]);
    assert_eq!((mean(&[]), deviation(&[])), (None, None));
}

#[test]
fn only_pairs_of_the_same_prompt_and_seed_are_compared() {
    let sample = |at: (usize, usize), less: f64| Sample {
        prompt: PROMPTS[at.0],
        seed: Some(at.1 as u32),
        value: value(at) - less,
    };
    let less = |(prompt, image): (usize, usize)| 0.005 * ((image + prompt) % 4) as f64;
    let mut first: Vec<_> = images().filter(|at| *at != (0, 0)).map(|at| sample(at, 0.)).collect();
    let mut other: Vec<_> =
        images().filter(|at| at.0 != 5).map(|at| sample(at, less(at))).collect();
    let got = paired(&first, &other, 1000).unwrap();
    assert_eq!((got.pairs, got.dropped, got.dropped_other), (19, 7, 1));
    near(got.difference, [0.007631578947368428, 0.006111111111111117, 0.009117966751918167]);

    // A second of a seed and one without a seed have no partner.
    first.push(sample((1, 0), 99.));
    other.push(Sample { seed: None, ..other[0] });
    let more = paired(&first, &other, 1000).unwrap();
    assert_eq!((more.difference, more.dropped, more.dropped_other), (got.difference, 8, 2));
    assert_eq!(paired(&first, &[], 1000), None);
}

#[test]
fn mended_and_lost_are_counted_apart() {
    let verdicts: Vec<_> = images()
        .map(|(prompt, image)| {
            let plain = (image + prompt) % 3 == 0;
            let kind = if image % 2 == 0 { "doubled" } else { "lone" };
            Verdict {
                prompt: PROMPTS[prompt],
                kind: (!plain).then_some(kind),
                plain,
                method: (image * prompt + image / 2) % 2 == 0,
            }
        })
        .collect();
    let got = mending(&verdicts, 1000);
    for (rate, count, of, share) in [
        (got.mended, 9, 18, [0.5, 0.375, 0.6666666666666666]),
        (got.lost, 3, 9, [0.3333333333333333, 0.1, 0.5714285714285714]),
        (got.by_kind.get("doubled").copied(), 6, 10, [0.6, 0.4, 0.875]),
        (got.by_kind.get("lone").copied(), 3, 8, [0.375, 0.14285714285714285, 0.625]),
    ] {
        let rate = rate.unwrap();
        assert_eq!((rate.count, rate.of), (count, of));
        near(rate.share, share);
    }
    assert_eq!(got.by_kind.len(), 2);
    let right = Verdict { prompt: "a", kind: None, plain: true, method: true };
    let got = mending(&[right], 10);
    assert_eq!((got.mended, got.lost.map(|rate| rate.count)), (None, Some(0)));
}

#[test]
fn the_area_under_the_curve_counts_ties_by_half() {
    let trials: Vec<_> = images()
        .map(|(prompt, image)| {
            let rank = (5 * image + 2 * prompt) % 7;
            let happened = (image * image + 3 * prompt + usize::from(rank > 2)) % 3 != 1;
            Trial { prompt: PROMPTS[prompt], score: rank as f64 / 10., happened }
        })
        .collect();
    let want = [0.6401098901098901, 0.4666666666666667, 0.8300833333333332];
    near(auc(&trials, 1000).unwrap(), want);
    let mut more = trials.clone();
    more.push(Trial { prompt: "g", score: f64::NAN, happened: true });
    near(auc(&more, 1000).unwrap(), want);
    let trial = |score, happened| Trial { prompt: "a", score, happened };
    for (case, trials, want) in [
        ("apart", vec![trial(0.1, false), trial(0.2, true)], Some(1.)),
        ("the wrong way", vec![trial(0.2, false), trial(0.1, true)], Some(0.)),
        ("all tied", vec![trial(0.2, false), trial(0.2, true)], Some(0.5)),
        ("always", vec![trial(0.2, true), trial(0.1, true)], None),
        ("nothing", vec![], None),
    ] {
        assert_eq!(auc(&trials, 10).map(|area| area.value), want, "{case}");
    }
}
