//! What goes wrong in a ledger: processes in one row, servers and links in another, side by side.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::crew::{Crew, Role};
use crate::cluster::Cluster;
use crate::proxy::{Fault, Proxy};
use crate::{Rabbit, failpoints};

/// Between two looks at the services.
const LOOK: Duration = Duration::from_millis(200);
/// How long a leader that is to crash is left alone until it does.
const POINT_MAX: Duration = Duration::from_secs(20);

/// How often each thing went wrong.
#[derive(Debug, Default)]
pub(super) struct Tally(RefCell<BTreeMap<String, u64>>);

impl Tally {
    pub(super) fn count(&self, what: &str) {
        *self.0.borrow_mut().entry(what.to_owned()).or_default() += 1;
    }

    /// Counts a service that crashed.
    fn crashed(&self, point: &str) {
        self.count(&format!("crash at {point}"));
    }

    /// One of the points where services crashed least often, so that a run comes to all of them.
    fn rarest(&self, points: &[&'static str], rng: &mut StdRng) -> &'static str {
        let counts = self.0.borrow();
        let count = |point: &&str| counts.get(&format!("crash at {point}")).copied().unwrap_or(0);
        let least = points.iter().map(&count).min();
        let rarest: Vec<_> =
            points.iter().copied().filter(|point| Some(count(point)) == least).collect();
        rarest.choose(rng).copied().unwrap_or(points[0])
    }

    pub(super) fn into_counts(self) -> BTreeMap<String, u64> {
        self.0.into_inner()
    }
}

/// The nemesis of a ledger.
#[derive(Debug)]
pub(super) struct Nemesis<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) rabbit: &'a Rabbit,
    pub(super) tally: &'a Tally,
    pub(super) until: Instant,
}

impl Nemesis<'_> {
    /// Kills, stops, crashes and freezes services.
    pub(super) async fn processes(&self, crew: &mut Crew, mut rng: StdRng) -> Result<()> {
        while self.tend_for(crew, seconds(&mut rng, 1. ..4.)).await? {
            let workers = of(crew, |role| role != Role::Dispatcher);
            let worker = *workers.choose(&mut rng).unwrap_or(&0);
            let dispatchers = of(crew, |role| role == Role::Dispatcher);
            let mut dispatcher = *dispatchers.choose(&mut rng).unwrap_or(&0);
            let back = seconds(&mut rng, 0. ..3.);
            match rng.random_range(0..15) {
                0 | 1 => {
                    crew.kill(worker, back);
                    self.tally.count("SIGKILL of a worker");
                }
                2 | 3 => {
                    crew.stop(worker, 1, back).await?;
                    self.tally.count("SIGTERM of a worker");
                }
                4 => {
                    crew.stop(worker, 2, back).await?;
                    self.tally.count("SIGTERM twice of a worker");
                }
                5 | 6 => {
                    let point = self.tally.rarest(&failpoints::WORKER, &mut rng);
                    let nth = if point == "worker_pass" { 0..40 } else { 0..4 };
                    crew.arm(worker, point, rng.random_range(nth)).await?;
                }
                7 => {
                    self.freeze(crew, worker, seconds(&mut rng, 2. ..15.)).await?;
                    self.tally.count("a worker hung");
                }
                8 => {
                    dispatcher = crew.leader(self.cluster).await.unwrap_or(dispatcher);
                    crew.kill(dispatcher, back);
                    self.tally.count("SIGKILL of the leading dispatcher");
                }
                9 => {
                    crew.stop(dispatcher, 1, back).await?;
                    self.tally.count("SIGTERM of a dispatcher");
                }
                10 => {
                    dispatcher = crew.leader(self.cluster).await.unwrap_or(dispatcher);
                    self.freeze(crew, dispatcher, seconds(&mut rng, 2. ..15.)).await?;
                    self.tally.count("the leading dispatcher hung");
                }
                _ => self.crash_dispatcher(crew, &mut rng, &dispatchers).await?,
            }
        }
        Ok(())
    }

    /// One dispatcher will crash; for points of leading, the other goes, so that it comes to lead.
    async fn crash_dispatcher(
        &self,
        crew: &mut Crew,
        rng: &mut StdRng,
        dispatchers: &[usize],
    ) -> Result<()> {
        // All may be gone at this moment.
        let Some(first) = dispatchers.first() else { return Ok(()) };
        let all = [&failpoints::ACCEPT[..], &failpoints::LEAD].concat();
        let point = self.tally.rarest(&all, rng);
        let leads = failpoints::LEAD.contains(&point);
        let leader = crew.leader(self.cluster).await.unwrap_or(*first);
        let other = dispatchers.iter().copied().find(|at| *at != leader).unwrap_or(leader);
        crew.arm(other, point, 0).await?;
        if !leads {
            return Ok(());
        }
        self.tend_for(crew, Duration::from_secs(2)).await?;
        // Back late, so that the other one leads for a while.
        crew.kill(leader, seconds(rng, 8. ..12.));
        self.tally.count("SIGKILL of the leading dispatcher");
        // It is to come to conclusions of every kind, and only a job that was given back has
        // something that follows.
        let end = Instant::now() + POINT_MAX;
        while self.tend_for(crew, seconds(rng, 2. ..4.)).await?
            && crew.is_armed(other)
            && Instant::now() < end
        {
            for worker in of(crew, |role| role == Role::Worker) {
                crew.stop(worker, 1, Duration::ZERO).await?;
                self.tally.count("SIGTERM of a worker");
            }
        }
        Ok(())
    }

    async fn freeze(&self, crew: &mut Crew, at: usize, time: Duration) -> Result<()> {
        crew.freeze(at, true)?;
        self.tend_for(crew, time).await?;
        crew.freeze(at, false)
    }

    /// Starts what ended, for a while; `false` at the end of all faults.
    async fn tend_for(&self, crew: &mut Crew, time: Duration) -> Result<bool> {
        let end = Instant::now() + time;
        loop {
            for point in crew.tend()? {
                self.tally.crashed(point);
            }
            let now = Instant::now();
            if now >= self.until {
                return Ok(false);
            }
            if now >= end {
                return Ok(true);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes servers away, lets them hang, and spoils the links to them.
    pub(super) async fn servers(&self, mut rng: StdRng) -> Result<()> {
        let Self { cluster, rabbit, tally, .. } = self;
        while self.wait(seconds(&mut rng, 2. ..7.)).await {
            let while_away = seconds(&mut rng, 0.5..8.);
            match rng.random_range(0..14) {
                0 => {
                    rabbit.kill();
                    self.wait(while_away / 2).await;
                    rabbit.start_again().await?;
                    tally.count("SIGKILL of the broker");
                }
                1 | 2 => {
                    rabbit.close_connections().await?;
                    tally.count("the broker closed all connections");
                }
                3 => {
                    rabbit.alarm(true).await?;
                    self.wait(while_away / 2).await;
                    rabbit.alarm(false).await?;
                    tally.count("alarm of the broker");
                }
                4 => {
                    cluster.redis.kill();
                    self.wait(while_away).await;
                    cluster.redis.start_again().await?;
                    tally.count("Redis lost with its data");
                }
                5 => {
                    cluster.redis.flush_all().await?;
                    tally.count("FLUSHALL");
                }
                6 => {
                    cluster.redis.pause()?;
                    self.wait(while_away).await;
                    cluster.redis.resume().await?;
                    tally.count("Redis hung");
                }
                7 => {
                    cluster.s3.kill();
                    self.wait(while_away).await;
                    cluster.s3.start_again().await?;
                    tally.count("SIGKILL of the store");
                }
                8 => {
                    cluster.s3.pause()?;
                    self.wait(while_away).await;
                    cluster.s3.resume()?;
                    tally.count("the store hung");
                }
                _ => self.spoil(&mut rng).await,
            }
        }
        Ok(())
    }

    async fn spoil(&self, rng: &mut StdRng) {
        let Some(links) = &self.cluster.links else { return };
        let all: [(&str, &Proxy); 4] = [
            ("broker", &links.broker),
            ("store", &links.store),
            // Once more, for it is in the way of every image.
            ("store", &links.store),
            ("Redis", &links.progress),
        ];
        let (name, link) = *all.choose(rng).unwrap_or(&all[0]);
        let (what, fault, time) = match rng.random_range(0..5) {
            0 => ("slow", Fault::Delay(Duration::from_millis(rng.random_range(50..400))), 4. ..10.),
            1 => ("narrow", Fault::Throttle(rng.random_range(2_000..50_000)), 4. ..10.),
            // Longer than two heartbeats of the broker at times.
            2 => ("dead, but open", Fault::HalfOpen, 3. ..28.),
            3 => ("cut", Fault::Cut, 0.5..6.),
            _ => {
                link.reset();
                self.tally.count(&format!("link to {name} reset"));
                return;
            }
        };
        link.set(fault);
        self.wait(seconds(rng, time)).await;
        link.set(Fault::None);
        self.tally.count(&format!("link to {name} {what}"));
    }

    /// Waits; `false` at the end of all faults.
    async fn wait(&self, time: Duration) -> bool {
        let now = Instant::now();
        let end = (now + time).min(self.until);
        tokio::time::sleep_until(end.into()).await;
        end < self.until
    }
}

fn of(crew: &Crew, which: impl Fn(Role) -> bool) -> Vec<usize> {
    (0..crew.seats.len()).filter(|at| which(crew.seats[*at].role) && crew.runs(*at)).collect()
}

fn seconds(rng: &mut StdRng, range: Range<f64>) -> Duration {
    Duration::from_secs_f64(rng.random_range(range))
}
