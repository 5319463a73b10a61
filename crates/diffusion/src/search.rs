//! Images with as many seeds as it takes: a round of runs, a try an image in each.
//!
//! After the last step that guidance may change, the scores of a try are known. An image whose
//! weakest subject is seen too little leaves the run and begins again with its next seed in the
//! next round; the others go on. If the last seed is no good either, the best one goes on from
//! where it was left. Which seed that is follows from the scores alone, and a row's bytes do not
//! depend on its neighbours: the image is the same in any company and after any interruption.
//!
//! Not here: which seed comes next and which is kept (`excite_jobs::Tries`).

use excite_jobs::{Accept, Spec, Tries};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::run::{Outputs, Parked, Rendered, Run, StepReport};
use crate::sidecar::{measured_step, weakest_score};

/// An image that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// What it is, with the seed that is tried first.
    pub spec: Spec,
    /// When it is good enough; `None`: as it comes.
    pub accept: Option<Accept>,
}

impl Wanted {
    /// The image that a further seed gives.
    pub(crate) fn with_seed_of(&self, tries: &Tries) -> Spec {
        Spec { seed: tries.seed(), ..self.spec.clone() }
    }
}

impl From<Spec> for Wanted {
    fn from(spec: Spec) -> Self {
        Self { spec, accept: None }
    }
}

/// A micro-batch in progress whose images may need several seeds.
pub struct Search<'m> {
    model: &'m Model,
    outputs: Outputs,
    images: Vec<Image>,
    /// Of this round; `None` between two rounds.
    run: Option<Run<'m>>,
    /// Which image each row of the run is.
    rows: Vec<usize>,
}

struct Image {
    wanted: Wanted,
    tries: Tries,
    /// Where the best try so far was left; `None` also if that was in another process.
    best: Option<Parked>,
    /// Steps of the tries before this one, wherever they were made.
    earlier: usize,
    /// Steps made here.
    made: usize,
    state: State,
}

enum State {
    Running,
    /// It begins in the next round.
    Waiting,
    Done(Box<Rendered>),
    /// Nobody wants it any more.
    Left,
}

impl<'m> Search<'m> {
    /// Starts images from their noise.
    ///
    /// # Errors
    /// As [`Run::start`].
    pub fn start(model: &'m Model, wanted: &[Wanted], outputs: Outputs) -> Result<Self> {
        let mut search = Self::new(model, wanted, outputs);
        if !search.next_round()? {
            return Err(Error::Spec("a run needs an image".into()));
        }
        Ok(search)
    }

    fn new(model: &'m Model, wanted: &[Wanted], outputs: Outputs) -> Self {
        let image = |wanted: &Wanted| Image {
            wanted: wanted.clone(),
            tries: Tries::new(wanted.spec.seed, wanted.accept),
            best: None,
            earlier: 0,
            made: 0,
            state: State::Waiting,
        };
        let images = wanted.iter().map(image).collect();
        // The scores are those of the maps.
        let maps = outputs.maps || wanted.iter().any(|wanted| wanted.accept.is_some());
        let outputs = Outputs { maps, ..outputs };
        Self { model, outputs, images, run: None, rows: Vec::new() }
    }

    /// Goes on from checkpoints of the same step, one an image.
    ///
    /// # Errors
    /// As [`Run::resume`].
    pub fn resume(
        model: &'m Model,
        wanted: &[Wanted],
        outputs: Outputs,
        checkpoints: &[Checkpoint],
    ) -> Result<Self> {
        let mut search = Self::new(model, wanted, outputs);
        for (image, checkpoint) in search.images.iter_mut().zip(checkpoints) {
            image.tries = checkpoint.tries_of(&image.wanted)?;
            image.earlier = checkpoint.earlier();
            image.state = State::Running;
        }
        let specs = search.images.iter().map(|image| image.wanted.with_seed_of(&image.tries));
        let specs: Vec<Spec> = specs.collect();
        search.run = Some(Run::resume(model, &specs, search.outputs, checkpoints)?);
        search.rows = (0..specs.len()).collect();
        Ok(search)
    }

    /// Begins the next round, if the last one is over and images wait; whether there is one to run.
    ///
    /// # Errors
    /// As [`Run::start`].
    pub fn next_round(&mut self) -> Result<bool> {
        if self.run.is_some() {
            return Ok(true);
        }
        let waits = |place: &usize| matches!(self.images[*place].state, State::Waiting);
        let waiting: Vec<usize> = (0..self.images.len()).filter(waits).collect();
        if waiting.is_empty() {
            return Ok(false);
        }
        let spec = |image: &Image| image.wanted.with_seed_of(&image.tries);
        let specs: Vec<Spec> = waiting.iter().map(|&place| spec(&self.images[place])).collect();
        self.run = Some(Run::start(self.model, &specs, self.outputs)?);
        for &place in &waiting {
            self.images[place].state = State::Running;
        }
        self.rows = waiting;
        Ok(true)
    }

    /// Steps of a whole run, the same in each round.
    pub fn steps(&self) -> usize {
        self.run.as_ref().map_or(0, Run::steps)
    }

    /// Steps done in this round, those before a checkpoint among them.
    pub fn done(&self) -> usize {
        self.run.as_ref().map_or(0, Run::done)
    }

    /// Whether this round has a step left.
    pub fn has_step(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.done() < run.steps())
    }

    /// Which images this round makes steps of, by their place; an entry a row of its reports.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// All images that are still wanted, finished or not, by their place.
    pub fn live(&self) -> impl Iterator<Item = usize> + '_ {
        let live = |place: &usize| !matches!(self.images[*place].state, State::Left);
        (0..self.images.len()).filter(live)
    }

    /// Steps made here for each image, with those of seeds that were not kept.
    pub fn made(&self) -> Vec<usize> {
        self.images.iter().map(|image| image.made).collect()
    }

    /// The try that an image is at, from 1.
    pub fn try_of(&self, place: usize) -> usize {
        let Some(image) = self.images.get(place) else { return 1 };
        let made = image.tries.made().len();
        if image.wanted.accept.is_some() && image.tries.is_decided() { made } else { made + 1 }
    }

    /// Makes one step of each row. [`Search::judge`] is to follow, behind any
    /// [`Search::checkpoint`].
    ///
    /// # Errors
    /// As [`Run::step`].
    pub fn step(&mut self, cancelled: &dyn Fn() -> bool) -> Result<StepReport> {
        let report = self.running()?.step(cancelled)?;
        for &place in &self.rows {
            self.images[place].made += 1;
        }
        Ok(report)
    }

    /// The state of the image in a row, with the seeds that were tried for it.
    ///
    /// # Errors
    /// As [`Run::checkpoint`].
    pub fn checkpoint(&self, row: usize) -> Result<Checkpoint> {
        let wrong = || Error::Checkpoint(format!("there is no row {row}"));
        let place = self.rows.get(row).ok_or_else(wrong)?;
        let image = &self.images[*place];
        let run = self.run.as_ref().ok_or_else(wrong)?;
        let checkpoint = run.checkpoint(row)?;
        Ok(checkpoint.after(image.tries.made().to_vec(), image.earlier))
    }

    /// Looks at the tries whose scores are known since the last step: what is not good enough
    /// leaves this round. Gives the steps that must be made again, since the best seed was left in
    /// another process.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn judge(&mut self) -> Result<usize> {
        let Some(run) = &mut self.run else { return Ok(0) };
        let mut keep = vec![true; self.rows.len()];
        let mut again = 0;
        for (row, &place) in self.rows.iter().enumerate() {
            let image = &mut self.images[place];
            let (spec, record) = run.seen(row)?;
            if image.tries.is_decided() || run.done() <= measured_step(spec, run.steps()) {
                continue;
            }
            image.tries.note(weakest_score(spec, record));
            let is_best = image.tries.kept() == image.tries.made().len().checked_sub(1);
            if image.tries.is_decided() {
                let best = image.best.take().filter(|best| best.done() == run.done());
                match best {
                    _ if is_best => continue,
                    Some(best) => {
                        run.replace(row, best)?;
                        continue;
                    }
                    None => again += run.done(),
                }
            } else if is_best {
                image.best = Some(run.park(row)?);
            }
            keep[row] = false;
            image.state = State::Waiting;
            image.earlier += run.done();
        }
        self.drop_rows(&keep)?;
        Ok(again)
    }

    /// Only the images for which `keep` holds are still wanted; gives the steps that were made here
    /// for those that leave.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) -> Result<usize> {
        let mut lost = 0;
        let leaving: Vec<usize> = self.live().filter(|&place| !keep(place)).collect();
        for &place in &leaving {
            self.images[place].state = State::Left;
            lost += self.images[place].made;
        }
        let stays: Vec<bool> = self.rows.iter().map(|place| !leaving.contains(place)).collect();
        self.drop_rows(&stays)?;
        Ok(lost)
    }

    /// Decodes what this round finished, and ends it.
    ///
    /// # Errors
    /// As [`Run::finish`].
    pub fn decode(&mut self) -> Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let rendered = run.finish()?;
        for (place, mut rendered) in std::mem::take(&mut self.rows).into_iter().zip(rendered) {
            let image = &mut self.images[place];
            rendered.tries = image.tries.made().to_vec();
            image.state = State::Done(Box::new(rendered));
        }
        Ok(())
    }

    /// The images in their order; `None` for what nobody wanted any more.
    pub fn finish(self) -> Vec<Option<Rendered>> {
        let rendered = |image: Image| match image.state {
            State::Done(rendered) => Some(*rendered),
            State::Running | State::Waiting | State::Left => None,
        };
        self.images.into_iter().map(rendered).collect()
    }

    /// Makes all steps that are left and decodes. `after` is told of each step.
    ///
    /// # Errors
    /// As [`Run::step`].
    pub fn complete(
        mut self,
        cancelled: &dyn Fn() -> bool,
        mut after: impl FnMut(&Self, &StepReport),
    ) -> Result<Vec<Rendered>> {
        self.judge()?;
        while self.next_round()? {
            while self.has_step() {
                let report = self.step(cancelled)?;
                after(&self, &report);
                self.judge()?;
            }
            self.decode()?;
        }
        Ok(self.finish().into_iter().flatten().collect())
    }

    fn running(&mut self) -> Result<&mut Run<'m>> {
        self.run.as_mut().ok_or_else(|| Error::Spec("the round has no step left".into()))
    }

    /// Rows leave the run; without any it is over.
    fn drop_rows(&mut self, keep: &[bool]) -> Result<()> {
        if keep.iter().all(|keep| *keep) {
            return Ok(());
        }
        if keep.contains(&true) {
            self.running()?.retain(keep)?;
        } else {
            self.run = None;
        }
        let mut keep = keep.iter();
        self.rows.retain(|_| keep.next() == Some(&true));
        Ok(())
    }
}
