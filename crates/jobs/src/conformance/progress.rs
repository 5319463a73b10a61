//! What every mirror of progress must do, but for what takes time: expiry is tested where each
//! back end can be asked about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::done::Tally;
use crate::id::{BatchId, JobId};
use crate::job::VERSION;
use crate::outcome::Class;
use crate::progress::{
    BatchEvent, BatchProgress, Change, ClassStatus, Due, MicroBatchSize, Point, Progress,
    RunningJob, Status, WorkerBeat, WorkerState, pack, unpack,
};
use crate::retry::DeadReason;
use crate::state::State;

type Shared = Arc<dyn Progress>;

/// Everything that takes no more than a moment. Nobody else may use the mirror meanwhile.
pub async fn all(mirror: &Shared) {
    workers(mirror).await;
    batches(mirror).await;
    changes(mirror).await;
    many_changes(mirror).await;
    many_jobs(mirror).await;
    cancellations(mirror).await;
    drains(mirror).await;
    events(mirror).await;
    statuses(mirror).await;
    points(mirror).await;
}

/// Beats replace each other; who is gone is gone.
pub async fn workers(mirror: &Shared) {
    assert_eq!(mirror.workers().await.unwrap(), []);
    for worker in ["b", "a", "with spaces, ü and :"] {
        mirror.beat(&beat(worker)).await.unwrap();
    }
    let newer = WorkerBeat { state: WorkerState::Draining, jobs: Vec::new(), ..beat("b") };
    mirror.beat(&newer).await.unwrap();
    let want = [beat("a"), newer, beat("with spaces, ü and :")];
    assert_eq!(mirror.workers().await.unwrap(), want, "by name");
    for worker in ["with spaces, ü and :", "a", "b", "b", "never"] {
        mirror.gone(worker).await.unwrap();
    }
    assert_eq!(mirror.workers().await.unwrap(), []);
}

/// A batch is there from its writing to its forgetting.
pub async fn batches(mirror: &Shared) {
    let (batch, other) = (self::batch(), self::batch());
    assert_eq!(mirror.batch(batch).await.unwrap(), None);
    assert_eq!(mirror.states(batch).await.unwrap(), None);
    let (states, tally) = (pack([State::Queued, State::Dead, State::Waiting]), tally());
    mirror.replace(batch, "3-17", &states, &tally).await.unwrap();
    mirror.replace(other, "9-9", &[], &Tally::default()).await.unwrap();
    let want = BatchProgress { revision: "3-17".to_owned(), tally };
    assert_eq!(mirror.batch(batch).await.unwrap(), Some(want.clone()));
    assert_eq!(mirror.states(batch).await.unwrap(), Some(states.clone()));
    assert_eq!(mirror.states(other).await.unwrap(), Some(Vec::new()), "a batch without jobs");

    mirror.finished(batch).await.unwrap();
    assert_eq!(mirror.batch(batch).await.unwrap(), Some(want), "for a while");
    mirror.replace(batch, "4-1", &states[..1], &Tally::default()).await.unwrap();
    assert_eq!(mirror.states(batch).await.unwrap(), Some(states[..1].to_vec()), "nothing is left");
    let empty = BatchProgress { revision: "4-1".to_owned(), tally: Tally::default() };
    assert_eq!(mirror.batch(batch).await.unwrap(), Some(empty), "nothing is left");

    mirror.event(batch, &event(1)).await.unwrap();
    mirror.set_cancelled(batch, true).await.unwrap();
    for _ in 0..2 {
        mirror.forget(batch).await.unwrap();
        assert_eq!(mirror.batch(batch).await.unwrap(), None);
        assert_eq!(mirror.states(batch).await.unwrap(), None);
        assert_eq!(mirror.events(batch, None, 9).await.unwrap(), []);
        assert_eq!(mirror.cancelled().await.unwrap(), BTreeSet::new());
    }
    assert!(mirror.batch(other).await.unwrap().is_some());
    mirror.finished(batch).await.unwrap();
    assert_eq!(mirror.batch(batch).await.unwrap(), None);
    mirror.forget(other).await.unwrap();
}

/// A change fits one revision, and is applied whole or not at all.
pub async fn changes(mirror: &Shared) {
    let batch = batch();
    let step = |from: &str, to: &str, states: &[(u32, State)]| Change {
        batch,
        from: from.to_owned(),
        to: to.to_owned(),
        states: states.to_vec(),
        tally: tally(),
    };
    let first = step("1-0", "1-1", &[(0, State::Dead), (3, State::Succeeded), (4, State::Running)]);
    assert!(!mirror.update(&first).await.unwrap(), "of a batch that is not there");
    assert_eq!(mirror.batch(batch).await.unwrap(), None);
    mirror.replace(batch, "1-0", &pack([State::Queued; 5]), &Tally::default()).await.unwrap();
    assert!(mirror.update(&first).await.unwrap());
    let expect = async |revision: &str, want: [State; 5]| {
        let progress = mirror.batch(batch).await.unwrap().unwrap();
        assert_eq!(progress, BatchProgress { revision: revision.to_owned(), tally: tally() });
        let states = mirror.states(batch).await.unwrap().unwrap();
        assert_eq!(states.len(), 3);
        assert_eq!([0, 1, 2, 3, 4].map(|index| unpack(&states, index)), want);
    };
    use State::{Dead, Queued, Running, Succeeded};
    expect("1-1", [Dead, Queued, Queued, Succeeded, Running]).await;

    assert!(!mirror.update(&first).await.unwrap(), "it was applied already");
    assert!(!mirror.update(&step("2-0", "2-1", &[(1, Dead)])).await.unwrap(), "of another leader");
    assert!(!mirror.update(&step("1-1", "1-2", &[(1, Dead), (6, Dead)])).await.unwrap(), "too few");
    expect("1-1", [Dead, Queued, Queued, Succeeded, Running]).await;
    assert!(mirror.update(&step("1-1", "1-2", &[])).await.unwrap(), "sums alone");
    expect("1-2", [Dead, Queued, Queued, Succeeded, Running]).await;
    assert!(mirror.update(&step("1-2", "1-3", &[(1, Dead), (1, Running)])).await.unwrap());
    expect("1-3", [Dead, Running, Queued, Succeeded, Running]).await;
    mirror.forget(batch).await.unwrap();
}

/// More changes at once than a back end sends in one piece.
pub async fn many_changes(mirror: &Shared) {
    const JOBS: u32 = 5003;
    let batch = batch();
    mirror.replace(batch, "1-0", &pack((0..JOBS).map(|_| State::Waiting)), &tally()).await.unwrap();
    let state = |index: u32| State::ALL[index as usize % 7];
    let mut change = Change {
        batch,
        from: "0-9".to_owned(),
        to: "1-1".to_owned(),
        states: (0..JOBS).rev().map(|index| (index, state(index))).collect(),
        tally: tally(),
    };
    assert!(!mirror.update(&change).await.unwrap());
    let states = mirror.states(batch).await.unwrap().unwrap();
    assert!(states.iter().all(|byte| *byte == 0), "nothing is changed at another revision");
    change.from = "1-0".to_owned();
    assert!(mirror.update(&change).await.unwrap());
    let states = mirror.states(batch).await.unwrap().unwrap();
    assert!((0..JOBS).all(|index| unpack(&states, index) == state(index)));
    assert_eq!(mirror.batch(batch).await.unwrap().unwrap().revision, "1-1");
    mirror.forget(batch).await.unwrap();
}

/// A batch of some millions of jobs is written and read whole.
pub async fn many_jobs(mirror: &Shared) {
    let batch = batch();
    // Not a multiple of anything.
    let states: Vec<u8> =
        (0..2_500_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    mirror.replace(batch, "1-0", &states, &tally()).await.unwrap();
    assert!(mirror.states(batch).await.unwrap().unwrap() == states);
    mirror.replace(batch, "1-1", &states[..9], &tally()).await.unwrap();
    assert_eq!(mirror.states(batch).await.unwrap().unwrap(), states[..9]);
    mirror.forget(batch).await.unwrap();
}

/// Marks of batches whose jobs should stop.
pub async fn cancellations(mirror: &Shared) {
    let (one, two) = (batch(), batch());
    assert_eq!(mirror.cancelled().await.unwrap(), BTreeSet::new());
    for batch in [one, two, one] {
        mirror.set_cancelled(batch, true).await.unwrap();
    }
    assert_eq!(mirror.cancelled().await.unwrap(), BTreeSet::from([one, two]));
    for _ in 0..2 {
        mirror.set_cancelled(one, false).await.unwrap();
        assert_eq!(mirror.cancelled().await.unwrap(), BTreeSet::from([two]));
    }
    mirror.set_cancelled(two, false).await.unwrap();
}

/// A worker should drain until it is gone; the next of its name should not.
pub async fn drains(mirror: &Shared) {
    mirror.drain("a").await.unwrap();
    assert!(mirror.is_drained("a").await.unwrap());
    assert!(!mirror.is_drained("b").await.unwrap());
    mirror.gone("a").await.unwrap();
    assert!(!mirror.is_drained("a").await.unwrap());
}

/// Events come in order, from where a watcher was.
pub async fn events(mirror: &Shared) {
    let (batch, other) = (batch(), batch());
    assert_eq!(mirror.events(batch, None, 9).await.unwrap(), []);
    for n in 0..5 {
        mirror.event(batch, &event(n)).await.unwrap();
    }
    mirror.event(other, &event(99)).await.unwrap();
    let all = mirror.events(batch, None, 9).await.unwrap();
    let want: Vec<_> = (0..5).map(event).collect();
    assert_eq!(all.iter().map(|(_, event)| event.clone()).collect::<Vec<_>>(), want);
    assert_eq!(mirror.events(batch, Some(&all[1].0), 2).await.unwrap(), all[2..4]);
    assert_eq!(mirror.events(batch, Some(&all[4].0), 9).await.unwrap(), []);
    assert_eq!(mirror.events(batch, Some("0-0"), 9).await.unwrap(), all, "too old to be known");
    assert_eq!(mirror.events(batch, None, 0).await.unwrap(), []);
    for id in ["", "x", "1", "$", "1-2-3", "-", "1 -2"] {
        mirror.events(batch, Some(id), 9).await.unwrap_err();
    }
    mirror.forget(batch).await.unwrap();
    mirror.forget(other).await.unwrap();
}

/// The last status stands.
pub async fn statuses(mirror: &Shared) {
    assert_eq!(mirror.status().await.unwrap(), None);
    mirror.set_status(&status()).await.unwrap();
    let newer = Status { epoch: 8, classes: Vec::new(), ..status() };
    mirror.set_status(&newer).await.unwrap();
    assert_eq!(mirror.status().await.unwrap(), Some(newer));
}

/// Points come back in their order, the last ones only.
pub async fn points(mirror: &Shared) {
    assert_eq!(mirror.points(9).await.unwrap(), []);
    for at in 0..5 {
        mirror.add_point(&point(at)).await.unwrap();
    }
    let all: Vec<Point> = (0..5).map(point).collect();
    assert_eq!(mirror.points(9).await.unwrap(), all);
    assert_eq!(mirror.points(2).await.unwrap(), all[3..]);
    assert_eq!(mirror.points(0).await.unwrap(), []);
}

/// After everything was lost, which `lose` sees to, a change says so and the batch can be written
/// again.
pub async fn lost(mirror: &Shared, lose: impl AsyncFnOnce()) {
    let batch = batch();
    mirror.replace(batch, "1-0", &[0x11], &tally()).await.unwrap();
    mirror.beat(&beat("a")).await.unwrap();
    mirror.set_cancelled(batch, true).await.unwrap();
    mirror.event(batch, &event(1)).await.unwrap();
    lose().await;
    assert_eq!(mirror.batch(batch).await.unwrap(), None);
    assert_eq!(mirror.states(batch).await.unwrap(), None);
    assert_eq!(mirror.workers().await.unwrap(), []);
    assert_eq!(mirror.cancelled().await.unwrap(), BTreeSet::new());
    assert_eq!(mirror.events(batch, None, 9).await.unwrap(), []);
    let change = Change {
        batch,
        from: "1-0".to_owned(),
        to: "1-1".to_owned(),
        states: vec![(1, State::Dead)],
        tally: tally(),
    };
    assert!(!mirror.update(&change).await.unwrap());
    mirror.replace(batch, "1-0", &[0x11], &tally()).await.unwrap();
    assert!(mirror.update(&change).await.unwrap());
    assert_eq!(mirror.states(batch).await.unwrap(), Some(vec![0x15]));
    mirror.forget(batch).await.unwrap();
}

/// A batch that nobody has.
pub fn batch() -> BatchId {
    BatchId::new()
}

/// A worker that runs a job.
pub fn beat(worker: &str) -> WorkerBeat {
    let batch: BatchId = Uuid::from_u128(7).to_string().parse().unwrap();
    WorkerBeat {
        v: VERSION,
        worker: worker.to_owned(),
        pool: "default".to_owned(),
        kind: "cpu-avx512-f32".to_owned(),
        class: "default".to_owned(),
        state: WorkerState::Ready,
        slots: 4,
        jobs: vec![RunningJob {
            job: JobId { batch, index: 12 },
            step: 3,
            steps: 50,
            loss: Some(0.5),
            scores: vec![Some(0.25), None],
        }],
        models: vec!["emoji@0123".to_owned()],
        model_bytes: 60_000_000,
        memory_bytes: Some(900_000_000),
        micro_batches: vec![MicroBatchSize {
            model: "emoji@0123".to_owned(),
            width: 128,
            height: 128,
            jobs: 2,
            reason: "fast enough".to_owned(),
        }],
        started_at: OffsetDateTime::UNIX_EPOCH,
        version: "0.1.0".to_owned(),
    }
}

/// Sums with something in every field.
pub fn tally() -> Tally {
    Tally {
        states: BTreeMap::from([(State::Waiting, 4_000_000_000), (State::Dead, 1)]),
        failures: BTreeMap::from([("out_of_memory".to_owned(), 3)]),
        dead: BTreeMap::from([(DeadReason::Poison, 1)]),
        seconds: 0.1 + 0.2,
        bytes: u64::MAX,
        retries: 5,
        preemptions: 6,
    }
}

/// An event with a number in it.
pub fn event(n: u64) -> BatchEvent {
    let tally = Tally { retries: n, ..tally() };
    BatchEvent { at: OffsetDateTime::UNIX_EPOCH, tally }
}

/// A leader's numbers.
pub fn status() -> Status {
    Status {
        v: VERSION,
        dispatcher: "dispatcher-0".to_owned(),
        epoch: 7,
        at: OffsetDateTime::UNIX_EPOCH,
        classes: vec![ClassStatus {
            class: "default".to_owned(),
            jobs: 12,
            seconds: Some(3.5),
            due: vec![Due { age_seconds: 1.5, seconds: 3.5 }],
            drain_seconds: None,
            ready: 4,
            oldest_seconds: Some(1.5),
        }],
        active_batches: 1,
        images_per_second: 0.25,
        dead_jobs: 2,
        connected: true,
        blocked: false,
    }
}

/// A point with a number in it.
pub fn point(at: i64) -> Point {
    Point {
        at,
        seconds: 10.,
        images: 3,
        accepted: 2,
        failures: BTreeMap::from([(Class::Capacity, 1)]),
        compute_seconds: 0.1 + 0.2,
        backlog_jobs: 12,
        running_jobs: 4,
        workers_ready: 2,
        drain_seconds: None,
    }
}
