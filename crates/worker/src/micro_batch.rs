//! Which jobs run together: those that share a run, the express ones and the oldest first.
//!
//! Pure: the caller reads the clock. Not here: how many at most (`batch_size`), running them
//! (`execute`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use excite_jobs::{Lane, SchedulerName};

use crate::batch_size::BatchSizes;
use crate::task::Task;

/// What the images of a run share.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    model: String,
    size: (u32, u32),
    steps: u32,
    scheduler: SchedulerName,
    first_step: usize,
    /// Who takes the first seed that comes does not wait for those who may need several.
    tries: bool,
    /// A state that was saved without latents cannot be gone on with where they are wanted.
    latents: bool,
}

impl Key {
    fn of(task: &Task) -> Self {
        let spec = &task.job.spec;
        let first_step = task.first_step();
        Self {
            model: spec.model.clone(),
            size: (spec.width, spec.height),
            steps: spec.steps,
            scheduler: spec.scheduler,
            first_step,
            tries: task.job.accept.is_some(),
            latents: first_step > 0 && task.job.outputs.trace,
        }
    }
}

#[derive(Debug)]
struct Entry {
    task: Task,
    key: Key,
    /// It may have killed a worker: nobody else's images should die with it.
    alone: bool,
    since: Instant,
}

/// Jobs that wait for their micro-batch.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Oldest first.
    entries: Vec<Entry>,
    sizes: Arc<BatchSizes>,
    wait: Duration,
}

impl Waiting {
    /// Micro-batches have as many jobs at most as `sizes` says, and no job waits longer than `wait`
    /// for others.
    pub(crate) fn new(sizes: Arc<BatchSizes>, wait: Duration) -> Self {
        Self { entries: Vec::new(), sizes, wait }
    }

    /// A job waits from now on. One that is `alone` shares its run with none.
    pub(crate) fn push(&mut self, task: Task, alone: bool, now: Instant) {
        let key = Key::of(&task);
        self.entries.push(Entry { task, key, alone, since: now });
    }

    /// When the next micro-batch should start; `None` if no job waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let head = self.head()?;
        let full = head.alone || self.group(head).len() == self.most(head);
        Some(if full { head.since } else { head.since + self.wait })
    }

    /// The next micro-batch: the oldest express job, or else the oldest, and what can go with it.
    pub(crate) fn take(&mut self) -> Vec<Task> {
        let Some(head) = self.head() else { return Vec::new() };
        let mut places = self.group(head);
        let mut taken = Vec::with_capacity(places.len());
        // From behind, so that the places of the others stay.
        places.sort_unstable_by(|a, b| b.cmp(a));
        for place in places {
            taken.push(self.entries.remove(place).task);
        }
        taken.reverse();
        taken
    }

    /// Takes all away.
    pub(crate) fn drain(&mut self) -> Vec<Task> {
        self.entries.drain(..).map(|entry| entry.task).collect()
    }

    fn head(&self) -> Option<&Entry> {
        let express = self.entries.iter().find(|entry| entry.task.job.lane == Lane::Express);
        express.or(self.entries.first())
    }

    fn most(&self, head: &Entry) -> usize {
        self.sizes.jobs(&head.task.job.spec)
    }

    /// Places of the jobs that go with `head`, express ones first.
    fn group(&self, head: &Entry) -> Vec<usize> {
        let goes = |entry: &Entry| match head.alone {
            true => entry.task.job.id == head.task.job.id,
            false => !entry.alone && entry.key == head.key,
        };
        let of = |lane: Lane| {
            let all = self.entries.iter().enumerate();
            all.filter(move |(_, entry)| entry.task.job.lane == lane && goes(entry))
                .map(|(at, _)| at)
        };
        of(Lane::Express).chain(of(Lane::Bulk)).take(self.most(head)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use excite_jobs::{Accept, Job};

    use super::*;
    use crate::batch_size::BatchSize;
    use crate::examples::{checkpoint, task};

    const WAIT: Duration = Duration::from_millis(5);

    fn waiting(slots: usize) -> Waiting {
        Waiting::new(Arc::new(BatchSizes::new(BatchSize::Auto, slots)), WAIT)
    }

    fn edited(index: u32, edit: impl FnOnce(&mut Job)) -> Task {
        let mut task = task(index);
        edit(&mut task.job);
        task
    }

    fn indices(tasks: &[Task]) -> Vec<u32> {
        tasks.iter().map(|task| task.job.index).collect()
    }

    #[test]
    fn only_what_shares_a_run_goes_together() {
        let start = Instant::now();
        let mut waiting = waiting(8);
        waiting.push(task(0), false, start);
        waiting.push(edited(1, |job| job.spec.width = 256), false, start);
        waiting.push(edited(2, |job| job.spec.steps = 3), false, start);
        waiting.push(edited(3, |job| job.spec.model = "emoji@1".into()), false, start);
        waiting.push(edited(4, |job| job.spec.scheduler = SchedulerName::Ddim), false, start);
        waiting.push(edited(5, |job| job.spec.prompt = "a dog".into()), false, start);
        waiting.push(task(6), true, start);
        let resumed = |index, trace, step| {
            let mut task = edited(index, |job| job.outputs.trace = trace);
            task.checkpoint = Some(Arc::new(checkpoint(step)));
            task
        };
        waiting.push(resumed(7, false, 1), false, start);
        waiting.push(resumed(8, true, 1), false, start);
        waiting.push(resumed(9, false, 2), false, start);
        waiting.push(resumed(10, false, 1), false, start);
        waiting.push(edited(11, |job| job.outputs.trace = true), false, start);
        let accept = Accept { min_score: 0.5, max_seeds: 2 };
        waiting.push(edited(12, |job| job.accept = Some(accept)), false, start);
        let order: Vec<Vec<u32>> =
            std::iter::from_fn(|| Some(indices(&waiting.take())).filter(|b| !b.is_empty()))
                .collect();
        assert_eq!(
            order,
            [
                vec![0, 5, 11],
                vec![1],
                vec![2],
                vec![3],
                vec![4],
                vec![6],
                vec![7, 10],
                vec![8],
                vec![9],
                vec![12]
            ]
        );
        assert_eq!(waiting.due(), None);
    }

    #[test]
    fn a_full_micro_batch_starts_at_once_and_another_after_its_wait() {
        let start = Instant::now();
        let mut waiting = waiting(2);
        waiting.push(task(0), false, start);
        assert_eq!(waiting.due(), Some(start + WAIT));
        waiting.push(task(1), false, start + WAIT / 2);
        assert_eq!(waiting.due(), Some(start));
        waiting.push(task(2), false, start + WAIT / 2);
        assert_eq!(indices(&waiting.take()), [0, 1]);
        assert_eq!(waiting.due(), Some(start + WAIT / 2 + WAIT));
        waiting.push(task(3), true, start + WAIT);
        assert_eq!(indices(&waiting.take()), [2]);
        assert_eq!(waiting.due(), Some(start + WAIT), "alone, it waits for none");
    }

    #[test]
    fn no_more_go_together_than_were_chosen_and_none_waits_for_more() {
        let start = Instant::now();
        let mut waiting = waiting(8);
        waiting.sizes.out_of_memory(&task(0).job.spec, 4);
        let large = |index| edited(index, |job| job.spec.width = 256);
        for index in 0..3 {
            waiting.push(task(index), false, start);
            waiting.push(large(index + 10), false, start);
        }
        assert_eq!(waiting.due(), Some(start));
        assert_eq!(indices(&waiting.take()), [0, 1]);
        assert_eq!(waiting.due(), Some(start + WAIT), "eight of these may go together");
        assert_eq!(indices(&waiting.take()), [10, 11, 12]);
        assert_eq!(indices(&waiting.take()), [2]);
    }

    #[test]
    fn express_jobs_go_first_and_fill_up_with_their_like() {
        let start = Instant::now();
        let mut waiting = waiting(2);
        for index in 0..3 {
            waiting.push(task(index), false, start);
        }
        waiting.push(edited(9, |job| job.lane = Lane::Express), false, start + WAIT);
        assert_eq!(indices(&waiting.take()), [0, 9], "in the order they came");
        assert_eq!(indices(&waiting.drain()), [1, 2]);
    }
}
