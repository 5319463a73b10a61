//! One image, the same bytes: alone or in any batch, in one go or after any interruption.

use std::cell::Cell;
use std::sync::LazyLock;

use excite_diffusion::{Checkpoint, Error, Outputs, Rendered, Run, Trace};
use excite_jobs::{Noise, SchedulerName, Spec};

use crate::{emoji, never, specs};

const ALL: Outputs = Outputs { latents: true, maps: true };

fn render(specs: &[Spec], outputs: Outputs) -> Vec<Rendered> {
    Run::start(emoji(), specs, outputs).unwrap().complete(&never, |_| ()).unwrap()
}

/// All that is known of an image: PNG and trace, with every loss, map and latent.
fn bytes(rendered: &Rendered) -> (Vec<u8>, Vec<u8>) {
    (rendered.picture.to_png(&[]).unwrap(), Trace::to_bytes(rendered).unwrap())
}

/// Five images that have nothing in common but size, steps and scheduler.
fn five() -> Vec<Spec> {
    let line = |json: &str| specs(json).remove(0);
    let refined =
        r#""steps": 4, "method_params": {"thresholds": {"1": 0.99}, "max_refinement_steps": 3}"#;
    vec![
        line(&format!(r#"{{"prompt": "a dog and a mouse", "seed": 1, {refined}}}"#)),
        line(
            r#"{"prompt": "a cat and a frog", "seed": 8, "steps": 4, "method_params": {"thresholds": {}}}"#,
        ),
        line(r#"{"prompt": "a lion and a elephant", "steps": 4, "method": "none"}"#),
        line(&format!(
            r#"{{"prompt": "a green backpack and a purple chair", "seed": 42, "guidance_scale": 1, {refined}}}"#
        )),
        line(
            r#"{"prompt": "a turtle with a crown", "seed": 3, "steps": 4, "negative_prompt": "a cat", "method_params": {"max_iter_to_alter": 2, "thresholds": {}}}"#,
        ),
    ]
}

/// They, made together and in one go.
static FIVE: LazyLock<Vec<Rendered>> = LazyLock::new(|| render(&five(), ALL));

/// The state of an image between two steps: what the rest of the run follows from.
fn state(run: &Run<'_>) -> Vec<u8> {
    run.checkpoint(0).unwrap().to_bytes().unwrap()
}

#[test]
fn a_batch_is_its_images() {
    let together = &*FIVE;
    let refined = |r: &Rendered| r.record.steps().iter().map(|s| s.refinements).sum::<u32>();
    let refinements: Vec<u32> = together.iter().map(refined).collect();
    assert!(refinements[0] > 0 && refinements[3] > 0, "{refinements:?}");
    assert_eq!([refinements[1], refinements[2], refinements[4]], [0; 3]);
    for (i, (spec, rendered)) in five().iter().zip(together).enumerate() {
        let alone = render(std::slice::from_ref(spec), ALL).remove(0);
        let (a, b) = (bytes(&alone), bytes(rendered));
        assert!(a.0 == b.0, "image {i} differs in its pixels");
        assert!(a.1 == b.1, "image {i} differs in its trace");
    }
}

/// Images leave after the first step and after the third; those that stay do not notice.
#[test]
fn an_image_does_not_notice_when_others_leave() {
    let mut run = Run::start(emoji(), &five(), ALL).unwrap();
    run.step(&never).unwrap();
    run.retain(&[true, false, true, true, true]).unwrap();
    run.step(&never).unwrap();
    run.step(&never).unwrap();
    assert!(run.retain(&[false; 4]).is_err() && run.retain(&[true; 5]).is_err());
    run.retain(&[false, true, false, true]).unwrap();
    let left = run.complete(&never, |_| ()).unwrap();
    assert_eq!(left.len(), 2);
    for (place, rendered) in [2, 4].into_iter().zip(&left) {
        assert!(bytes(rendered) == bytes(&FIVE[place]), "image {place}");
    }
}

#[test]
fn the_size_of_the_batch_does_not_matter() {
    let line = r#"{"prompt": "a cat and a frog", "seeds": "0..8", "steps": 2}"#;
    let alone = bytes(&render(&specs(line)[..1], ALL)[0]);
    for count in [2, 3, 5, 8] {
        let first = bytes(&render(&specs(line)[..count], ALL)[0]);
        assert!(first == alone, "batch of {count}");
    }
}

#[test]
fn recording_changes_nothing() {
    let spec = &five()[..1];
    let plain = render(spec, Outputs::default()).remove(0);
    assert!(plain.picture == render(spec, ALL)[0].picture, "the pictures differ");
    assert!(plain.record.latents().is_empty() && plain.record.observed().is_empty());
}

/// Twelve steps with a refinement, stopped after each and gone on with from the saved bytes: one
/// step later the state is that of the run that never stopped, and so is all that follows.
#[test]
fn an_image_survives_a_stop_after_any_step() {
    let line = r#"{"prompt": "a spiky dog and a mouse", "seed": 1, "steps": 12,
        "subjects": ["spiky", "mouse"],
        "method_params": {"thresholds": {"0": 0.9, "6": 0.99}, "max_refinement_steps": 3}}"#;
    let specs = specs(line);
    let mut run = Run::start(emoji(), &specs, ALL).unwrap();
    let steps = run.steps();
    assert_eq!(steps, 13);
    let resume = |saved: &[u8]| {
        let read = Checkpoint::from_bytes(saved).unwrap();
        (read.next_step(), Run::resume(emoji(), &specs, ALL, &[read]).unwrap())
    };
    for step in 0..steps {
        let (next, mut resumed) = resume(&state(&run));
        assert_eq!(next, step);
        resumed.step(&never).unwrap();
        run.step(&never).unwrap();
        assert!(state(&resumed) == state(&run), "stopped after {step} steps");
    }
    let (_, resumed) = resume(&state(&run));
    let refined = |r: &Rendered| r.record.steps().iter().map(|s| s.refinements).collect::<Vec<_>>();
    let (resumed, whole) = (resumed.finish().unwrap(), run.finish().unwrap());
    assert!(refined(&whole[0]).iter().filter(|&&n| n > 0).count() > 1, "{:?}", refined(&whole[0]));
    assert!(bytes(&resumed[0]) == bytes(&whole[0]), "stopped after the last step");
}

/// What a scheduler remembers, and the noise that some draw on the way, belong to the image too.
#[test]
fn every_scheduler_stops_and_goes_on_in_another_batch() {
    for (i, name) in SchedulerName::NAMES.iter().enumerate() {
        let noise = Noise::NAMES[i % Noise::NAMES.len()];
        let line = format!(
            r#"{{"prompt": "a cat and a frog", "seeds": "0..3", "steps": 5, "scheduler": "{name}",
                "noise": "{noise}"}}"#
        );
        let specs = specs(&line);
        let alone = bytes(&render(&specs[1..2], ALL)[0]);
        let mut run = Run::start(emoji(), &specs, ALL).unwrap();
        run.step(&never).unwrap();
        run.step(&never).unwrap();
        let saved = run.checkpoint(1).unwrap().to_bytes().unwrap();
        let saved = [Checkpoint::from_bytes(&saved).unwrap()];
        let resumed = Run::resume(emoji(), &specs[1..2], ALL, &saved).unwrap();
        assert!(bytes(&resumed.complete(&never, |_| ()).unwrap()[0]) == alone, "{name} resumed");
        assert!(bytes(&run.complete(&never, |_| ()).unwrap()[1]) == alone, "{name} in a batch");
    }
}

#[test]
fn an_image_goes_on_in_another_batch() {
    let specs = five();
    let mut run = Run::start(emoji(), &specs, ALL).unwrap();
    run.step(&never).unwrap();
    run.step(&never).unwrap();
    let picked = [4, 0].map(|row| (specs[row].clone(), run.checkpoint(row).unwrap()));
    let (picked_specs, checkpoints): (Vec<_>, Vec<_>) = picked.into_iter().unzip();
    let resumed = Run::resume(emoji(), &picked_specs, ALL, &checkpoints).unwrap();
    let resumed = resumed.complete(&never, |_| ()).unwrap();
    assert!(bytes(&resumed[0]) == bytes(&FIVE[4]));
    assert!(bytes(&resumed[1]) == bytes(&FIVE[0]));
}

/// Wherever in a step the stop comes, nothing of that step is kept.
#[test]
fn a_step_that_was_cancelled_never_happened() {
    let specs = &five()[..1];
    let mut run = Run::start(emoji(), specs, ALL).unwrap();
    let mut states = vec![state(&run)];
    while run.done() < run.steps() {
        run.step(&never).unwrap();
        states.push(state(&run));
    }
    for pass in 0..10 {
        let asked = Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > pass
        };
        let mut run = Run::start(emoji(), specs, ALL).unwrap();
        let error = loop {
            match run.step(&stop) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert!(state(&run) == states[run.done()], "pass {pass}: what was kept");
        run.step(&never).unwrap();
        assert!(state(&run) == states[run.done()], "pass {pass}: what follows");
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_is_refused() {
    let specs = five();
    let mut run = Run::start(emoji(), &specs[..2], Outputs::default()).unwrap();
    let early = run.checkpoint(0).unwrap();
    run.step(&never).unwrap();
    let (first, second) = (run.checkpoint(0).unwrap(), run.checkpoint(1).unwrap());
    let refused = |specs: &[Spec], outputs, checkpoints: &[Checkpoint]| match Run::resume(
        emoji(),
        specs,
        outputs,
        checkpoints,
    ) {
        Err(Error::Checkpoint(message)) => message,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    };
    let (none, one) = (Outputs::default(), std::slice::from_ref(&first));
    for (message, want) in [
        (refused(&specs[..1], none, &[]), "none"),
        (refused(&specs[..2], none, one), "one for each"),
        (refused(&specs[..2], none, &[early, second.clone()]), "different steps"),
        (refused(&specs[..2], none, &[second, first.clone()]), "another image"),
        (refused(&specs[..1], ALL, one), "did not keep"),
    ] {
        assert!(message.contains(want), "{want}: {message}");
    }
    let saved = first.to_bytes().unwrap();
    for cut in [0, 7, 100, saved.len() - 1] {
        let error = Checkpoint::from_bytes(&saved[..cut]).unwrap_err();
        assert!(matches!(error, Error::Checkpoint(_)), "{cut}: {error}");
    }
}

#[test]
fn a_trace_can_be_read() {
    let rendered = render(&five()[..1], ALL).remove(0);
    let trace = Trace::from_bytes(&Trace::to_bytes(&rendered).unwrap()).unwrap();
    assert_eq!(trace.spec, rendered.spec);
    assert_eq!(trace.record.timesteps(), rendered.record.timesteps());
    assert_eq!(trace.record.observed(), rendered.record.observed());
    assert_eq!(trace.record.steps().len(), rendered.record.steps().len());
    let incomplete = render(&five()[..1], Outputs::default()).remove(0);
    assert!(matches!(Trace::to_bytes(&incomplete), Err(Error::Tensors { .. })));
}

#[test]
fn images_that_cannot_share_a_run_are_refused() {
    let mut specs = five();
    assert!(matches!(Run::start(emoji(), &[], ALL), Err(Error::Spec(_))));
    specs[1].steps = 5;
    let error = Run::start(emoji(), &specs, ALL).err().unwrap();
    assert!(error.to_string().contains("must share"), "{error}");
    specs.truncate(1);
    for (change, want) in [
        ((|spec| spec.model = "other@1".into()) as fn(&mut Spec), "`other@1`"),
        (|spec| spec.width = 100, "multiples of 16"),
        (|spec| spec.steps = 0, "`steps` is 0"),
        (|spec| spec.subjects[0].indices = vec![70], "`subjects`"),
    ] {
        let mut spec = specs[0].clone();
        change(&mut spec);
        let error = Run::start(emoji(), &[spec], ALL).err().unwrap();
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
}

/// Sides that differ, smaller and larger than those the model knows. 1024x256 has as many pixels as
/// 512x512: maps are taken by their level, not by their number of pixels.
#[test]
fn other_sizes_are_made() {
    for (width, height, steps, maps) in [(96, 160, 2, (20, 12)), (1024, 256, 1, (32, 128))] {
        let line = format!(
            r#"{{"prompt": "a cat and a frog", "width": {width}, "height": {height},
                "steps": {steps}, "method_params": {{"thresholds": {{}}}}}}"#
        );
        let rendered = render(&specs(&line), ALL).remove(0);
        assert_eq!((rendered.picture.width(), rendered.picture.height()), (width, height));
        assert_eq!(rendered.record.observed()[0].size, maps);
    }
}
