//! Further seeds: the one that is kept gives the bytes that it gives alone, whatever ran beside it
//! and wherever it was interrupted.

use std::sync::LazyLock;

use excite_diffusion::{Checkpoint, Error, Outputs, Rendered, Run, Search, Trace, Wanted, kind};
use excite_jobs::{Accept, Spec, Tries, Try};

use crate::{emoji, never, specs};

const ALL: Outputs = Outputs { latents: true, maps: true };
/// Seeds of an image.
const SEEDS: u32 = 3;
/// Steps until the scores of a seed are known; each image has two more.
const MEASURED: usize = 2;

/// Of four steps, with a scheduler that remembers; guidance ends behind the second one.
fn spec(seed: u32) -> Spec {
    let line = format!(
        r#"{{"prompt": "a cat and a frog", "seed": {seed}, "steps": 3, "width": 64, "height": 64,
        "method_params": {{"max_iter_to_alter": {MEASURED}, "thresholds": {{}}}}}}"#
    );
    specs(&line).remove(0)
}

fn accept(min_score: f64) -> Option<Accept> {
    Some(Accept { min_score, max_seeds: SEEDS })
}

fn wanted(seed: u32, accept: Option<Accept>) -> Wanted {
    Wanted { spec: spec(seed), accept }
}

/// All that is known of an image.
fn bytes(rendered: &Rendered) -> (Vec<u8>, Vec<u8>) {
    let png = rendered.picture.to_png_of(&rendered.spec).unwrap();
    (png, Trace::to_bytes(rendered).unwrap())
}

fn weakest(rendered: &Rendered) -> f32 {
    let scores = excite_diffusion::attention(&rendered.spec, &rendered.record).scores;
    scores.into_iter().flatten().reduce(f32::min).unwrap()
}

/// An image whose best seed is at some place among its seeds.
struct Case {
    seed: u32,
    /// Each of its seeds, made alone and taken as it comes.
    each: Vec<Rendered>,
}

impl Case {
    fn best(&self) -> usize {
        let score = |place: usize| weakest(&self.each[place]);
        (0..self.each.len()).max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap()
    }

    fn tries(&self, count: usize) -> Vec<Try> {
        let one = |r: &Rendered| Try { seed: r.spec.seed, score: Some(weakest(r)) };
        self.each.iter().take(count).map(one).collect()
    }
}

/// One for each place of the best seed.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let mut cases: Vec<Option<Case>> = (0..SEEDS).map(|_| None).collect();
    for seed in 0..20 {
        if cases.iter().all(Option::is_some) {
            break;
        }
        let all: Vec<Spec> = Tries::new(seed, accept(1.)).seeds().map(spec).collect();
        let each = Run::start(emoji(), &all, ALL).unwrap().complete(&never, |_| ()).unwrap();
        let case = Case { seed, each };
        let slot = &mut cases[case.best()];
        slot.get_or_insert(case);
    }
    cases.into_iter().map(Option::unwrap).collect()
});

#[test]
fn seeds_are_tried_until_one_is_good_enough() {
    for (place, case) in CASES.iter().enumerate() {
        // The best is just good enough, and none before it.
        let least = f64::from(weakest(&case.each[place]));
        let search = Search::start(emoji(), &[wanted(case.seed, accept(least))], ALL).unwrap();
        let mut steps = 0;
        let made = search.complete(&never, |_, _| steps += 1).unwrap().remove(0);
        assert_eq!(made.tries, case.tries(place + 1));
        assert!(bytes(&made) == bytes(&case.each[place]), "best at {place}: other bytes");
        assert_eq!(steps, 4 + place * MEASURED, "tries that are not kept end early");
    }
}

/// All in one micro-batch, beside images that take what comes.
#[test]
fn the_best_seed_is_kept_if_none_is_good_enough() {
    let mut all: Vec<Wanted> = CASES.iter().map(|case| wanted(case.seed, accept(1.))).collect();
    all.push(wanted(CASES[0].seed, None));
    all.push(wanted(CASES[1].seed, accept(0.)));
    let search = Search::start(emoji(), &all, ALL).unwrap();
    let made = search.complete(&never, |_, _| ()).unwrap();
    for (place, case) in CASES.iter().enumerate() {
        assert_eq!(made[place].tries, case.tries(SEEDS as usize));
        assert!(bytes(&made[place]) == bytes(&case.each[place]), "best at {place}: other bytes");
    }
    assert_eq!((&made[3].tries, &made[4].tries), (&vec![], &CASES[1].tries(1)));
    assert!(bytes(&made[3]) == bytes(&CASES[0].each[0]), "without further seeds");
    assert!(bytes(&made[4]) == bytes(&CASES[1].each[0]), "the first one is good enough");
}

/// Also where the best seed was left in memory that is gone: it is made again.
#[test]
fn an_interruption_at_any_step_changes_nothing() {
    for place in [0, 2] {
        let case = &CASES[place];
        let want = bytes(&case.each[place]);
        let one = [wanted(case.seed, accept(1.))];
        let mut search = Search::start(emoji(), &one, ALL).unwrap();
        let mut saved = Vec::new();
        while search.next_round().unwrap() {
            while search.has_step() {
                search.step(&never).unwrap();
                let checkpoint = search.checkpoint(0).unwrap();
                saved.push(checkpoint.to_bytes().unwrap());
                assert_eq!(checkpoint.steps_made(), saved.len(), "later states have more steps");
                assert_eq!(search.judge().unwrap(), 0, "nothing was lost");
            }
            search.decode().unwrap();
        }
        assert_eq!(saved.len(), 3 * MEASURED + 2);
        let mut again = 0;
        // The last two are those of an image that is decided.
        for (at, saved) in saved.iter().enumerate().take(3 * MEASURED + 1) {
            let read = Checkpoint::from_bytes(saved).unwrap();
            read.fits(&one[0], kind()).unwrap();
            let mut search = Search::resume(emoji(), &one, ALL, &[read]).unwrap();
            again += search.judge().unwrap();
            while search.next_round().unwrap() {
                while search.has_step() {
                    search.step(&never).unwrap();
                    again += search.judge().unwrap();
                }
                search.decode().unwrap();
            }
            let made = search.finish().remove(0).unwrap();
            assert!(bytes(&made) == want, "best at {place}, resumed at {at}: other bytes");
            assert_eq!(made.tries, case.tries(SEEDS as usize));
        }
        assert_eq!(again > 0, place < 2, "what is lost is counted");
    }
}

#[test]
fn states_of_another_search_are_refused() {
    let case = &CASES[2];
    let mut search = Search::start(emoji(), &[wanted(case.seed, accept(1.))], ALL).unwrap();
    for _ in 0..MEASURED {
        search.step(&never).unwrap();
        search.judge().unwrap();
    }
    assert!(search.next_round().unwrap());
    search.step(&never).unwrap();
    let checkpoint = search.checkpoint(0).unwrap();
    let fits = |wanted: &Wanted| checkpoint.fits(wanted, kind());
    fits(&wanted(case.seed, accept(1.))).unwrap();
    for other in [
        wanted(case.seed, None),
        wanted(case.seed, accept(0.)),
        wanted(case.seed, Some(Accept { min_score: 1., max_seeds: 1 })),
        wanted(case.seed + 1, accept(1.)),
    ] {
        let refused = fits(&other);
        assert!(matches!(refused, Err(Error::Checkpoint(_))), "{other:?}");
    }
}

/// Whether it runs, waits for its next seed or is done.
#[test]
fn what_nobody_wants_any_more_leaves() {
    let first = wanted(CASES[2].seed, accept(1.));
    let all = [first.clone(), wanted(CASES[0].seed, None), first];
    let mut search = Search::start(emoji(), &all, ALL).unwrap();
    for _ in 0..MEASURED {
        search.step(&never).unwrap();
        search.judge().unwrap();
    }
    assert_eq!(search.rows(), [1], "two wait for their next seed");
    assert_eq!(search.retain(|place| place != 0).unwrap(), MEASURED);
    assert_eq!(search.live().collect::<Vec<_>>(), [1, 2]);
    // The last row of the round goes, and the next round comes.
    assert_eq!(search.retain(|place| place == 2).unwrap(), MEASURED);
    assert!(!search.has_step());
    assert!(search.next_round().unwrap());
    let made = search.complete(&never, |_, _| ()).unwrap();
    assert_eq!(made.len(), 1);
    assert!(bytes(&made[0]) == bytes(&CASES[2].each[2]));
}
