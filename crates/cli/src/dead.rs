//! `excite dead`: jobs that were given up, what they died of, and another try for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use excite_jobs::api::{
    BatchState, BatchView, DeadGroup, DeadList, JobPage, JobView, ReplayRequest, Replayed,
};
use excite_jobs::{BatchId, State, Tally, limits};
use ureq::http::Method;

use crate::args::{DeadCommand, DeadListArgs, DeadShowArgs, ReplayArgs};
use crate::batch::view::moment;
use crate::client::{Client, Pages, Request};
use crate::fault::{Fault, Status};
use crate::printer::Printer;

/// Jobs a request.
const PAGE: usize = 1000;
/// Characters of an example in a table.
const EXAMPLE_CHARS: usize = 60;
/// Indices of a group in a table.
const INDICES_SHOWN: usize = 3;

pub(crate) fn run(
    command: &DeadCommand,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    match command {
        DeadCommand::List(args) => list(args, &Client::new(&args.server, printer, interrupted)?),
        DeadCommand::Show(args) => show(args, &Client::new(&args.server, printer, interrupted)?),
        DeadCommand::Replay(args) => {
            replay(args, &Client::new(&args.server, printer, interrupted)?)
        }
    }
}

fn list(args: &DeadListArgs, client: &Client<'_>) -> Result<Status, Fault> {
    let query = match &args.batch {
        Some(batch) => format!("?batch={}", client.batch_id(batch)?),
        None => String::new(),
    };
    let DeadList { groups } = client.get(&format!("/v1/dead{query}"))?;
    for group in &groups {
        client.printer.document(group);
    }
    if groups.is_empty() {
        client.printer.note("no job is dead");
        return Ok(Status::Done);
    }
    let head = ["BATCH", "REASON", "CODE", "JOBS", "INDICES", "EXAMPLE"];
    client.printer.table(&head, groups.iter().map(row));
    client.printer.note(
        "`excite dead show BATCH INDEX` tells more, `excite dead replay BATCH` tries them again",
    );
    Ok(Status::Done)
}

fn row(group: &DeadGroup) -> Vec<String> {
    let shown = group.indices.iter().take(INDICES_SHOWN).map(u32::to_string);
    let mut indices = shown.collect::<Vec<_>>().join(",");
    if group.jobs > INDICES_SHOWN as u64 {
        indices += ",…";
    }
    let mut example: String = group.example.chars().take(EXAMPLE_CHARS).collect();
    if group.example.chars().count() > EXAMPLE_CHARS {
        example.push('…');
    }
    vec![
        group.batch.to_string(),
        group.reason.as_str().to_owned(),
        group.code.clone(),
        group.jobs.to_string(),
        indices,
        example,
    ]
}

fn show(args: &DeadShowArgs, client: &Client<'_>) -> Result<Status, Fault> {
    let id = client.batch_id(&args.batch)?;
    let found = still_dead(client, id)?;
    let wanted: BTreeSet<u32> = args.indices.iter().copied().collect();
    let shown: Vec<&JobView> =
        found.values().filter(|job| wanted.is_empty() || wanted.contains(&job.index)).collect();
    for job in &shown {
        client.printer.document(job);
        describe(job, client.printer);
    }
    let missing: Vec<String> =
        wanted.iter().filter(|index| !found.contains_key(index)).map(u32::to_string).collect();
    if !missing.is_empty() {
        client.printer.note(&format!("not dead: {}", missing.join(", ")));
    } else if found.is_empty() {
        client.printer.note("no job of this batch is dead");
    }
    Ok(match (missing.is_empty(), shown.is_empty()) {
        (true, _) => Status::Done,
        (false, true) => Status::Failed,
        (false, false) => Status::PartlyFailed,
    })
}

/// Jobs that died and did not come back. What is listed is what happened, so a job that was
/// replayed is listed still.
fn still_dead(client: &Client<'_>, id: BatchId) -> Result<BTreeMap<u32, JobView>, Fault> {
    let mut dead: BTreeMap<u32, JobView> = BTreeMap::new();
    // The later of two counts.
    concluded(client, id, State::Dead, &mut |job| drop(dead.insert(job.index, job)))?;
    let batch: BatchView = client.get(&format!("/v1/batches/{id}"))?;
    let now = |tally: &Tally| tally.of(State::Dead) as usize;
    let expected = batch.tally.as_ref().map_or(0, now);
    if dead.len() > expected {
        let cancelled = batch.state == BatchState::Cancelled;
        for state in [State::Succeeded].into_iter().chain(cancelled.then_some(State::Cancelled)) {
            concluded(client, id, state, &mut |job| drop(dead.remove(&job.index)))?;
        }
    }
    if batch.tally.is_some() && dead.len() > expected {
        let again = dead.len() - expected;
        client.printer.note(&format!("{again} of these are being tried again"));
    }
    Ok(dead)
}

/// Hands on the jobs of a batch that were concluded in one way, in the order of their conclusion.
fn concluded(
    client: &Client<'_>,
    id: BatchId,
    state: State,
    take: &mut dyn FnMut(JobView),
) -> Result<(), Fault> {
    let mut pages = Pages::new(format!("/v1/batches/{id}/jobs?state={state}"), PAGE);
    loop {
        let page: JobPage = client.get(&pages.target())?;
        page.jobs.into_iter().filter(|job| job.state == state).for_each(&mut *take);
        if !pages.turn(page.next) {
            return Ok(());
        }
    }
}

fn describe(job: &JobView, printer: &Printer) {
    let id = &job.custom_id;
    let name = id.as_ref().map_or(String::new(), |id| format!(" ({id})"));
    let reason = job.dead.map_or("unknown", |reason| reason.as_str());
    printer.result(&format!("job {}{name}: {reason}", job.index));
    printer.result(&format!("  line {}: {}", job.line, job.prompt));
    printer.result(&format!("  seed {}, method {}", job.seed, job.method));
    if let Some(failure) = &job.failure {
        let (class, code, message) = (failure.class, &failure.code, &failure.message);
        printer.result(&format!("  {class}, {code}: {message}"));
    }
    let worker = job.worker.as_ref().map_or(String::new(), |worker| format!(" on {worker}"));
    let at = job.at.map_or_else(String::new, |at| format!(", {}", moment(at)));
    printer.result(&format!("  attempt {}{worker}{at}", job.attempt));
}

fn replay(args: &ReplayArgs, client: &Client<'_>) -> Result<Status, Fault> {
    let batch = client.batch_id(&args.batch)?;
    let mut request = Request::new(Method::POST, "/v1/dead/replay");
    // A second time there is nothing left to try, and the count would be wrong.
    request.idempotent = false;
    let all = |indices: Option<Vec<u32>>| ReplayRequest {
        batch,
        reason: args.reason,
        code: args.code.clone(),
        indices,
    };
    let requests: Vec<ReplayRequest> = if args.indices.is_empty() {
        vec![all(None)]
    } else {
        let chunks = args.indices.chunks(limits::REPLAY_INDICES_MAX);
        chunks.map(|chunk| all(Some(chunk.to_vec()))).collect()
    };
    let mut total = Replayed { jobs: 0 };
    for body in &requests {
        let replayed: Replayed = client.send(&request, body)?;
        total.jobs += replayed.jobs;
    }
    client.printer.document(&total);
    let jobs =
        if total.jobs == 1 { "1 job is".to_owned() } else { format!("{} jobs are", total.jobs) };
    client.printer.result(&format!("{jobs} tried again"));
    if total.jobs > 0 {
        client.printer.note(&format!("follow the batch with `excite batch watch {batch}`"));
    }
    Ok(Status::Done)
}
