//! The ledger, shortened: a minute in which everything fails in turn, and every job is accounted
//! for. `cargo xtask faults` runs it for as long as one likes.

use std::time::Duration;

use excite_tests::ledger::{self, Options};

/// Of this the machine starts and ends servers for a minute more.
const FAULTS_FOR: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_job_is_accounted_for_whatever_fails() {
    let options = Options { faults_for: FAULTS_FOR, seed: 7 };
    let report = ledger::run(options).await.unwrap();
    eprint!("{}", report.table());
    eprintln!("{}", report.json());
    assert!(report.is_clean(), "{:#?}", report.violations);
    assert!(report.fault_count() > 10, "{:?}", report.faults);
}
