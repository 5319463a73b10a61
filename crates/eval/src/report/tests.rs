//! Rows with numbers that can be added up by hand.

use super::*;
use crate::binding::Verdict;
use crate::images::{Attended, Count};
use crate::scores::{Binding, Bound, Presence};

/// A row of an image whose two subjects are seen or not.
fn row(
    prompt: &str,
    subset: Option<&str>,
    method: &str,
    seed: u32,
    full: f32,
    seen: [bool; 2],
) -> Score {
    let presence = |(word, present): (&str, bool)| Presence {
        word: word.into(),
        logit: if present { 1. } else { -1. },
        present,
    };
    let parts = prompt.contains(" and ") || prompt.contains(" with ");
    Score {
        v: 1,
        path: format!("{method}/{prompt}/{seed}.png"),
        sha256: String::new(),
        prompt: prompt.into(),
        subset: subset.map(str::to_owned),
        method: method.into(),
        seed: Some(seed),
        seconds: Some(if method == "none" { 2. } else { 4. }),
        full: Some(full),
        min_object: parts.then_some(full / 2.),
        caption: None,
        text_text: None,
        presence: ["first", "second"].into_iter().zip(seen).map(presence).collect(),
        binding: None,
        attended: None,
        tries: 1,
        measure: "m".into(),
    }
}

fn rows() -> Vec<Score> {
    let animals = Some("animals");
    let (cat, lion) = ("a cat and a dog", "a lion and a frog");
    let guided = "attend_and_excite";
    vec![
        with_things(row(cat, animals, "none", 0, 0.25, [true, false]), &["first"]),
        row(cat, animals, "none", 1, 0.5, [true, true]),
        with_things(row(lion, animals, "none", 0, 0.25, [false, false]), &["second", "second"]),
        row(lion, animals, "none", 1, 0.5, [true, true]),
        row(cat, animals, guided, 0, 0.5, [true, true]),
        row(cat, animals, guided, 1, 0.5, [true, false]),
        row(lion, animals, guided, 0, 0.5, [true, true]),
        row(lion, animals, guided, 2, 1.0, [true, true]),
        row("a house", None, "none", 0, 0.75, [true, true]),
    ]
}

fn of(rows: &[Score], problems: &[Problem]) -> Report {
    let rows: Vec<&Score> = rows.iter().collect();
    Report::new(Input { rows: &rows, problems, baseline: "none", resamples: 200 })
}

/// The same row, of a picture that shows these things.
fn with_things(row: Score, things: &[&str]) -> Score {
    let things = things.iter().map(|thing| Some((*thing).to_owned())).collect();
    Score { binding: Some(Binding { subjects: Vec::new(), things }), ..row }
}

/// Two methods on two prompts of a set, one of them on another prompt.
pub(crate) fn report() -> Report {
    let counts = [(2, 2), (1, 1)].map(|(images, prompts)| Count { images, prompts }).to_vec();
    let problems = [
        Problem::Broken { path: "x.png".into(), reason: "it is cut off".into() },
        Problem::UnequalCounts { method: "none".into(), counts },
    ];
    of(&rows(), &problems)
}

#[test]
fn each_set_and_method_has_its_numbers() {
    let report = report();
    let names: Vec<_> =
        report.subsets.iter().map(|s| (&*s.name, s.prompts, s.prompts_skipped)).collect();
    assert_eq!(names, [("animals", 2, 0), ("other", 1, 1), ("all", 3, 1)]);
    #[rustfmt::skip]
    let table = [
        // set       method               metric               n  value
        ("animals", "none",              Metric::Full,        4, 0.375),
        ("animals", "none",              Metric::MinObject,   4, 0.1875),
        ("animals", "none",              Metric::AllPresent,  4, 0.5),
        ("animals", "none",              Metric::Seconds,     4, 2.),
        ("animals", "none",              Metric::GoodPerHour, 4, 900.),   // 2 in 8 s
        ("animals", "attend_and_excite", Metric::Full,        4, 0.625),
        ("animals", "attend_and_excite", Metric::AllPresent,  4, 0.75),
        ("animals", "attend_and_excite", Metric::GoodPerHour, 4, 675.),   // 3 in 16 s
        ("other",   "none",              Metric::Full,        1, 0.75),
        ("all",     "none",              Metric::Full,        5, 0.45),
        ("all",     "none",              Metric::MinObject,   4, 0.1875), // not of "a house"
    ];
    for (set, method, metric, n, value) in table {
        let got = report.subset(set).unwrap().estimate(method, metric).unwrap();
        assert_eq!(got.n, n, "{set} {method} {metric:?}");
        assert!((got.interval.value - value).abs() < 1e-7, "{set} {method} {metric:?}: {got:?}");
    }
    let animals = report.subset("animals").unwrap();
    assert_eq!(animals.estimate("none", Metric::Full).unwrap().deviation, Some(0.125));
    assert_eq!(animals.estimate("none", Metric::TextText), None);
    assert_eq!(report.subset("other").unwrap().estimate("none", Metric::MinObject), None);
    let methods: Vec<_> = animals.methods.iter().map(|m| (&*m.name, m.images, m.prompts)).collect();
    assert_eq!(methods, [("none", 4, 2), ("attend_and_excite", 4, 2)], "the baseline first");
}

#[test]
fn differences_are_of_pairs() {
    let report = report();
    let [plain, guided] = &report.subset("animals").unwrap().methods[..] else { panic!() };
    assert!(plain.differences.is_empty() && plain.mending.is_none());
    let full = guided.differences[&Metric::Full];
    assert_eq!((full.pairs, full.dropped, full.dropped_other), (3, 1, 1));
    assert!((full.difference.value - 0.5 / 3.).abs() < 1e-9, "{full:?}");
    assert!((guided.differences[&Metric::AllPresent].difference.value - 1. / 3.).abs() < 1e-9);
    let mending = guided.mending.as_ref().unwrap();
    let counts = |rate: &crate::statistics::Rate| (rate.count, rate.of);
    assert_eq!(mending.mended.as_ref().map(counts), Some((2, 2)));
    assert_eq!(mending.lost.as_ref().map(counts), Some((1, 1)));
    assert_eq!(mending.by_kind.keys().collect::<Vec<_>>(), ["doubled", "lone"]);
}

#[test]
fn the_order_is_compared_with_the_published_one() {
    let with = |full: f32| {
        let mut rows = rows();
        rows.push(row(
            "a cat and a dog",
            Some("animals"),
            "composable_diffusion",
            0,
            full,
            [true; 2],
        ));
        of(&rows, &[]).subset("animals").unwrap().agreement[0].clone()
    };
    // Published: composable below plain below Attend-and-Excite; here plain has 0.375, it 0.625.
    assert_eq!((with(0.1).metric, with(0.1).pairs), (Metric::Full, 3));
    assert_eq!((with(0.1).swapped, with(0.1).tau), (vec![], 1.));
    let swapped = with(0.4);
    assert_eq!(swapped.swapped, [["none".to_owned(), "composable_diffusion".to_owned()]]);
    assert!((swapped.tau - 1. / 3.).abs() < 1e-12);
    assert_eq!((with(0.375).swapped, with(0.375).tau), (vec![], 2. / 3.));
    // Published as equal on this set: whichever comes first here, they are no pair.
    let equal =
        ["composable_diffusion", "structure_diffusion", "none"].into_iter().zip([0.1, 0.2, 0.3]);
    let equal: Vec<Score> = equal
        .map(|(method, full)| {
            row("a cat and a red car", Some("animals_objects"), method, 0, full, [true; 2])
        })
        .collect();
    let agreement = of(&equal, &[]).subset("animals_objects").unwrap().agreement[0].clone();
    assert_eq!((agreement.pairs, agreement.swapped, agreement.tau), (2, vec![], 1.));
    assert_eq!(report().subset("other").unwrap().agreement, []);
    assert_eq!(report().subset("all").unwrap().agreement, []);
}

#[test]
fn json_gives_the_report_back_and_csv_has_a_number_a_line() {
    let report = report();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    assert!(json.contains(r#""metrics":{"full":{"n":4,"value":0.375,"low":"#), "{json}");
    let csv = report.csv();
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0], ["subset", "method", "metric", "n", "value", "low", "high"]);
    assert!(lines.iter().all(|line| line.len() == 7), "{csv}");
    let has =
        |start: &str| assert!(csv.lines().any(|line| line.starts_with(start)), "{start}: {csv}");
    has("animals,none,full,4,0.375,");
    has("animals,attend_and_excite,all_present_minus_none,3,0.3333333333333333,");
    has("animals,attend_and_excite,mended_doubled,1,1,1,1");
    has("all,attend_and_excite,lost,1,1,");
    let odd = of(&[row("a", None, "one, \"two\"", 0, 0.5, [true; 2])], &[]).csv();
    assert!(odd.contains("other,\"one, \"\"two\"\"\",full,1,0.5,0.5,0.5"), "{odd}");
}

#[test]
fn tables_have_the_same_cells_in_both_styles() {
    let report = report();
    let text = report.table(Style::Text);
    let markdown = report.table(Style::Markdown);
    let want = "\
animals: 2 prompts
method             images          full prompt       minimum object         all subjects           s/image      good/hour
none                    4  0.375 [0.375 0.375]  0.188 [0.188 0.188]   50.0 % [50.0 50.0]  2.00 [2.00 2.00]  900 [900 900]
attend_and_excite       4  0.625 [0.500 0.750]  0.312 [0.250 0.375]  75.0 % [50.0 100.0]  4.00 [4.00 4.00]  675 [450 900]

against none on the same prompts and seeds
method             pairs  without partner             full prompt          minimum object                all subjects
attend_and_excite      3            1 / 1  +0.167 [+0.125 +0.250]  +0.083 [+0.062 +0.125]  +33.3 points [+0.0 +100.0]
";
    assert!(text.starts_with(want), "{text}");
    for line in [
        "| none              |      4 | 0.375 [0.375 0.375] | ",
        "| attend_and_excite | mended, doubled | 1 of 1 | 100.0 % [100.0 100.0] |",
        "| attend_and_excite (Attend-and-Excite) |       0.332 |          0.248 |     0.806 |",
        "| attend_and_excite | lost            | 1 of 1 | 100.0 % [100.0 100.0] |",
        "## 2 problems",
        "- `x.png` is left out: it is cut off",
        "- the prompts of `none` have unequally many images: 2 have 2, 1 have 1",
        "Order by full prompt: as published (1 pair).",
        "The minimum object leaves out 1 prompt without \" and \" and \" with \".",
        "In brackets: 95 % of 200 bootstrap resamples of the prompts.",
    ] {
        assert!(markdown.lines().any(|found| found.starts_with(line)), "{line}\n{markdown}");
    }
    // Every line of a Markdown table is as long as its header.
    for table in markdown.split("\n\n").filter(|part| part.starts_with('|')) {
        let cells = |line: &str| line.matches('|').count();
        let mut lines = table.lines().filter(|line| line.starts_with('|'));
        let first = lines.next().map(cells);
        assert!(lines.all(|line| Some(cells(line)) == first), "{table}");
    }
}

#[test]
fn names_do_not_break_tables_and_nothing_is_a_report_too() {
    let odd = of(&[row("a", None, "a|b", 0, 0.5, [true; 2])], &[]);
    assert!(odd.table(Style::Markdown).contains("| a\\|b   |"), "{}", odd.table(Style::Markdown));
    let empty = of(&[], &[]);
    assert_eq!((empty.subsets.len(), empty.csv().lines().count()), (0, 1));
    assert!(empty.table(Style::Text).contains("200 bootstrap resamples"));
}

/// An image of a seed whose weakest subject was attended to so far.
fn tried(prompt: &str, method: &str, seed: u32, judged: f32, all: bool) -> Score {
    let attended = Attended { judged, steps: [(10, judged / 2.)].into() };
    Score { attended: Some(attended), ..row(prompt, None, method, seed, 0.5, [true, all]) }
}

#[test]
fn further_seeds_are_chosen_by_the_score() {
    let rows = [
        tried("a", "none", 0, 0.1, false),
        tried("a", "none", 1, 0.2, false),
        tried("b", "none", 0, 0.1, false),
        tried("b", "none", 1, 0.2, true),
        // The best score is not that of the good image; equal ones count as they come.
        tried("a", "guided", 0, 0.9, false),
        tried("a", "guided", 1, 0.2, true),
        tried("a", "guided", 2, 0.9, true),
        tried("b", "guided", 0, 0.3, true),
        tried("b", "guided", 1, 0.2, false),
        tried("b", "guided", 2, 0.1, false),
        // Fewer seeds than the others, and seeds that were tried by the method itself.
        tried("c", "guided", 0, 0.9, true),
        Score { tries: 4, ..tried("a", "guided+accept", 0, 0.9, true) },
    ];
    let report = of(&rows, &[]);
    let found: Vec<_> = report
        .further
        .iter()
        .map(|f| {
            let sixth = |share: f64| (6. * share * 1e9).round() / 1e9;
            let kept = f.by_score.unwrap();
            let removed = kept.removed.map(|removed| (removed.value * 1e9).round() / 1e9);
            let shares = [kept.all_present, f.any.all_present].map(|share| sixth(share.value));
            (&*f.method, f.seeds, f.prompts, shares, removed)
        })
        .collect();
    // "a", two seeds: 0 and 1 keep a bad one, 1 and 2 a good one, 2 and 0 the first of equals.
    // Failures of the baseline: all of "a", half of "b".
    let removed = |kept: f64| Some(((kept - 0.25) / 0.75 * 1e9).round() / 1e9);
    #[rustfmt::skip]
    assert_eq!(found, [
        ("guided", 1, 2, [3., 3.], removed(3. / 6.)),
        ("guided", 2, 2, [4., 5.], removed(4. / 6.)),
        // Of three the best of "a" is seed 0 or 2, whichever comes first.
        ("guided", 3, 2, [5., 6.], removed(5. / 6.)),
        ("none",   1, 2, [1.5, 1.5], Some(0.)),
        ("none",   2, 2, [3., 3.], removed(3. / 6.)),
    ]);
    assert!(report.further.iter().all(|further| further.by_regions.is_none()));
    let text = report.table(Style::Text);
    assert!(text.contains("with further seeds") && text.contains("does the weakest"), "{text}");
    let foretold: Vec<_> =
        report.foretold.iter().map(|f| (&*f.method, f.step, f.images, f.auc.value)).collect();
    // "none": the good image has the highest score of four, with one tie: (2 + 0.5) of 3 pairs.
    assert_eq!(foretold[1], ("none", 10, 4, 2.5 / 3.));
}

#[test]
fn further_seeds_are_chosen_by_the_regions() {
    let of_regions = |seed, verdict, all| {
        let bound = |verdict| Bound { word: "cat".into(), colour: None, verdict };
        let subjects = [Verdict::Shown, verdict].map(bound).to_vec();
        let binding = Some(Binding { subjects, things: Vec::new() });
        Score { binding, ..row("a", None, "guided", seed, 0.5, [true, all]) }
    };
    let rows = [
        of_regions(0, Verdict::Undecided, true),
        of_regions(1, Verdict::Swapped, false),
        of_regions(2, Verdict::Absent, true),
    ];
    let report = of(&rows, &[]);
    let shares: Vec<_> = report
        .further
        .iter()
        .map(|f| (3. * f.by_regions.unwrap().all_present.value, f.by_score, f.any.removed))
        .collect();
    // Whatever the order, seed 1 before 0 before 2.
    assert_eq!(shares, [(2., None, None), (1., None, None), (0., None, None)]);
}
