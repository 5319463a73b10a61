//! What follows from things that are known; the eye itself is tested on pictures (`tests/binding.rs`).

use super::*;

fn thing(subject: Option<&str>, colour: Colour) -> Thing {
    let region = Bounds { left: 0, top: 0, right: 1, bottom: 1 };
    let certainty = if subject.is_some() { 0.95 } else { 0.5 };
    Thing { region, subject: subject.map(str::to_owned), certainty, colour }
}

fn one(colour: &str) -> Colour {
    Colour::One(colour.into())
}

fn verdicts(things: &[Thing], asked: [(&str, Option<&str>); 2]) -> [Verdict; 2] {
    let asked = asked.map(|(subject, colour)| Asked::new(subject, colour).unwrap());
    let found = findings(things, &asked);
    [found[0].verdict, found[1].verdict]
}

#[test]
fn verdicts_follow_from_the_things() {
    use Verdict::*;
    let (car, bench) = (Some("car"), Some("bench"));
    let asked = [("car", Some("red")), ("bench", Some("green"))];
    #[rustfmt::skip]
    let table = [
        (vec![thing(car, one("red")), thing(bench, one("green"))],         [Right, Right]),
        (vec![thing(car, one("green")), thing(bench, one("red"))],         [Swapped, Swapped]),
        (vec![thing(car, one("red")), thing(bench, one("red"))],           [Right, Swapped]),
        (vec![thing(car, one("blue")), thing(bench, Colour::Mixed)],       [Wrong, Mixed]),
        (vec![thing(car, Colour::Unclear)],                                [Undecided, Absent]),
        (vec![thing(car, one("red")), thing(None, one("green"))],          [Right, Undecided]), // may be the bench
        (vec![thing(car, one("green")), thing(car, one("red"))],           [Right, Absent]),    // one is enough
        (vec![thing(car, one("blue")), thing(car, Colour::Unclear)],       [Undecided, Absent]),
        (vec![thing(car, one("blue")), thing(car, one("green"))],          [Swapped, Absent]),
        (vec![],                                                           [Absent, Absent]),
    ];
    for (things, want) in table {
        assert_eq!(verdicts(&things, asked), want, "{things:?}");
    }
}

#[test]
fn what_is_named_with_little_certainty_hides_whether_a_subject_is_absent() {
    let named = Thing { certainty: 0.8, ..thing(Some("horse"), one("yellow")) };
    let asked = [("horse", None), ("clock", Some("blue"))];
    assert_eq!(verdicts(&[named], asked), [Verdict::Shown, Verdict::Undecided]);
}

#[test]
fn a_subject_without_a_colour_is_only_looked_for() {
    let things = [thing(Some("cat"), Colour::Unclear), thing(Some("bow"), one("blue"))];
    let asked = [("cat", None), ("bow", Some("red"))];
    assert_eq!(verdicts(&things, asked), [Verdict::Shown, Verdict::Wrong]);
}

#[test]
fn words_that_the_readings_do_not_know_are_refused() {
    for (subject, colour, field) in
        [("tree", None, "subject"), ("none", None, "subject"), ("car", Some("teal"), "colour")]
    {
        let error = Asked::new(subject, colour).unwrap_err();
        assert!(matches!(error, BindingError::Word { field: f, .. } if f == field), "{error}");
    }
}

#[test]
fn another_size_or_another_judge_is_an_error() {
    let none = |_: &[Picture]| Ok(vec![]);
    let error = things(&Picture::filled(64, 128, [255; 3]), none).unwrap_err();
    assert!(matches!(error, BindingError::Size { width: 64, height: 128 }), "{error}");
    let mut picture = Picture::filled(128, 128, [255; 3]);
    for at in 0..900 {
        picture.set(40 + at % 30, 40 + at / 30, [0; 3]);
    }
    let error = things(&picture, none).unwrap_err();
    assert!(matches!(error, BindingError::Judge { found: 0, .. }), "{error}");
}
