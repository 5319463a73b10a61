//! What pools cost by when their batches are done, under several autoscalers:
//! `cargo xtask ops scaling`.
//!
//! Prints one JSON object: for each scenario the points of each autoscaler, best settings of the
//! others included. Nothing is measured here: pods are simulated, the formulas are real.

#![expect(clippy::print_stdout, reason = "its output is read by xtask")]

use anyhow::Result;
use excite_dispatcher::config::Pool;
use excite_tests::scaling::autoscaler::{Autoscaler, Behaviour, Trigger};
use excite_tests::scaling::scenario::{self, Scenario};
use excite_tests::scaling::{Outcome, run};
use serde_json::{Value, json};

const SEEDS: [u64; 2] = [1, 2];
/// What the chart sets: whoever has no job goes at once, the last one after as long as a start takes.
const OURS: Behaviour =
    Behaviour { stabilization_seconds: 0., down_share: 1., cooldown_seconds: 180. };
const DRAIN_SECONDS: [f64; 8] = [600., 900., 1200., 1800., 2700., 3600., 5400., 7200.];
const PER_WORKER: [f64; 12] = [3., 7., 15., 30., 50., 75., 100., 150., 220., 350., 600., 1200.];
const BUSY: [f64; 2] = [0.5, 0.8];
/// A utilisation grows to whatever is allowed.
const MOST: [u32; 7] = [25, 50, 100, 150, 250, 400, 1000];

fn main() -> Result<()> {
    let scenarios = scenario::all();
    let reports: Vec<Value> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            scenarios.iter().map(|scenario| scope.spawn(move || report(scenario))).collect();
        runs.into_iter().filter_map(|run| run.join().ok()).collect()
    });
    anyhow::ensure!(reports.len() == scenarios.len(), "a scenario was not simulated");
    println!("{}", json!({ "scenarios": reports }));
    Ok(())
}

fn report(scenario: &Scenario) -> Value {
    let ours: Vec<Value> = DRAIN_SECONDS
        .iter()
        .map(|&drain_seconds| {
            let start_seconds = (scenario.start.start + scenario.start.end) / 2. + scenario.load;
            let pool = Pool { drain_seconds, start_seconds, max: scenario.max, ..Pool::default() };
            let trigger = Trigger::Dispatcher(pool);
            point(scenario, &trigger, OURS, scenario.max, json!({"drain_seconds": drain_seconds}))
        })
        .collect();
    let mut others = Vec::new();
    for behaviour in behaviours() {
        for (name, running) in [("KEDA, http", true), ("KEDA, amqp", false)] {
            for per_worker in PER_WORKER {
                let trigger = Trigger::Queue { per_worker, running };
                let set = json!({"autoscaler": name, "jobs_per_worker": per_worker});
                others.push(point(scenario, &trigger, behaviour, scenario.max, set));
            }
        }
        for (busy, most) in BUSY.iter().flat_map(|busy| MOST.map(|most| (*busy, most))) {
            let most = most.min(scenario.max);
            let set = json!({"autoscaler": "HPA, utilisation", "target": busy, "max": most});
            others.push(point(scenario, &Trigger::Utilisation(busy), behaviour, most, set));
        }
    }
    let work: f64 = scenario.batches.iter().flat_map(|batch| &batch.jobs).sum();
    json!({
        "name": scenario.name, "says": scenario.says, "work_seconds": work,
        "ours": ours, "others": others,
    })
}

/// Ways to scale down that people choose among: at once, the defaults, carefully.
fn behaviours() -> Vec<Behaviour> {
    let down = [(0., 1.), (60., 1.), (300., 1.), (300., 0.1)];
    let behaviour = |(stabilization_seconds, down_share), cooldown_seconds| Behaviour {
        stabilization_seconds,
        down_share,
        cooldown_seconds,
    };
    down.iter().flat_map(|down| [60., 300.].map(|cooldown| behaviour(*down, cooldown))).collect()
}

fn point(
    scenario: &Scenario,
    trigger: &Trigger,
    behaviour: Behaviour,
    max: u32,
    mut set: Value,
) -> Value {
    let runs = SEEDS
        .map(|seed| run(scenario, &mut Autoscaler::new(trigger.clone(), behaviour, max), seed));
    let mean = |value: fn(&Outcome) -> f64| runs.iter().map(value).sum::<f64>() / runs.len() as f64;
    set["stabilization_seconds"] = json!(behaviour.stabilization_seconds);
    set["down_share"] = json!(behaviour.down_share);
    set["cooldown_seconds"] = json!(behaviour.cooldown_seconds);
    json!({
        "set": set,
        "seconds": mean(|run| run.drain_seconds),
        "gpu_seconds": mean(|run| run.gpu_seconds),
        "wasted": mean(|run| run.wasted),
        "peak": mean(|run| f64::from(run.peak)),
    })
}
