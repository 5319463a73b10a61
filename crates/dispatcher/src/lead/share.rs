//! Deficit round robin: how batches of one queue share what is fed.
//!
//! Pure. A turn gives a batch `quantum` jobs times its weight, so neighbours in the queue are
//! alike and share micro-batches; what a turn has left is kept when there is no more room.

use std::collections::VecDeque;

use excite_jobs::BatchId;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    ring: VecDeque<BatchId>,
    /// What the batch in front may still take in its turn; `None` before its turn began.
    left: Option<u32>,
}

/// What a batch has to give.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// Its share.
    pub(crate) weight: u32,
    /// Jobs that it can be asked for now.
    pub(crate) jobs: u32,
}

impl Shares {
    /// Makes `batch` take part, behind all others; nothing happens if it does already.
    pub(crate) fn join(&mut self, batch: BatchId) {
        if !self.ring.contains(&batch) {
            self.ring.push_back(batch);
        }
    }

    /// Takes a batch out.
    pub(crate) fn leave(&mut self, batch: BatchId) {
        if self.ring.front() == Some(&batch) {
            self.left = None;
        }
        self.ring.retain(|other| *other != batch);
    }

    /// Whether nobody takes part.
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Shares `room` jobs out. `offer` says what a batch has; one that has nothing is passed over.
    /// The answer is in the order in which the jobs should be published.
    pub(crate) fn take(
        &mut self,
        mut room: u32,
        quantum: u32,
        offer: impl Fn(BatchId) -> Offer,
    ) -> Vec<(BatchId, u32)> {
        let mut taken: Vec<(BatchId, u32)> = Vec::new();
        // Batches in a row that had nothing: after a whole round of them there is nothing left.
        let mut idle = 0;
        while room > 0 && idle < self.ring.len() {
            let Some(&batch) = self.ring.front() else { break };
            let had: u32 = taken.iter().filter(|(b, _)| *b == batch).map(|(_, n)| n).sum();
            let Offer { weight, jobs } = offer(batch);
            let jobs = jobs.saturating_sub(had);
            if jobs == 0 {
                idle += 1;
                self.next();
                continue;
            }
            idle = 0;
            let turn = quantum.max(1).saturating_mul(weight.max(1));
            let left = self.left.take().unwrap_or(turn);
            let count = left.min(jobs).min(room);
            room -= count;
            match taken.last_mut() {
                Some((last, n)) if *last == batch => *n += count,
                _ => taken.push((batch, count)),
            }
            if count == left {
                self.next();
            } else {
                self.left = Some(left - count);
            }
        }
        taken
    }

    fn next(&mut self) {
        self.left = None;
        self.ring.rotate_left(usize::from(!self.ring.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn ring(n: usize) -> (Shares, Vec<BatchId>) {
        let ids: Vec<_> = (0..n).map(|_| BatchId::new()).collect();
        let mut shares = Shares::default();
        ids.iter().for_each(|id| shares.join(*id));
        (shares, ids)
    }

    #[test]
    fn three_batches_share_by_weight_whatever_the_room_is() {
        for room in [1, 7, 16, 100] {
            let (mut shares, ids) = ring(3);
            let weights = BTreeMap::from([(ids[0], 1), (ids[1], 2), (ids[2], 5)]);
            let mut got: BTreeMap<BatchId, u32> = BTreeMap::new();
            let mut total = 0;
            while total < 16 * 8 * 20 {
                let taken =
                    shares.take(room, 16, |id| Offer { weight: weights[&id], jobs: 1_000_000 });
                for (id, n) in taken {
                    *got.entry(id).or_default() += n;
                    total += n;
                }
            }
            for (id, n) in &got {
                let share = f64::from(*n) / f64::from(total);
                let want = f64::from(weights[id]) / 8.;
                assert!((share - want).abs() < 0.05, "room {room}: {share} instead of {want}");
            }
        }
    }

    #[test]
    fn neighbours_are_of_one_batch() {
        let (mut shares, ids) = ring(2);
        let taken = shares.take(40, 16, |_| Offer { weight: 1, jobs: 1000 });
        assert_eq!(taken, [(ids[0], 16), (ids[1], 16), (ids[0], 8)]);
        let taken = shares.take(20, 16, |_| Offer { weight: 1, jobs: 1000 });
        assert_eq!(taken, [(ids[0], 8), (ids[1], 12)], "a turn goes on where it stopped");
    }

    #[test]
    fn who_has_nothing_holds_nobody_up() {
        let (mut shares, ids) = ring(3);
        let some = |id| Offer { weight: 1, jobs: if id == ids[1] { 20 } else { 0 } };
        assert_eq!(shares.take(100, 16, some), [(ids[1], 20)]);
        assert_eq!(shares.take(100, 16, |_| Offer { weight: 1, jobs: 0 }), []);
        shares.leave(ids[1]);
        assert_eq!(shares.take(100, 16, some), []);
        assert_eq!(Shares::default().take(5, 16, some), []);
    }
}
