//! Jobs for tests.

use excite_jobs::{Job, JobId};

/// Job `index` of one batch: 2 plain steps on a model that is not there.
pub(crate) fn job(index: u32) -> Job {
    let text = r#"{"v":1,"id":"0192d7a0-0000-7000-8000-000000000001-00000000",
        "batch":"0192d7a0-0000-7000-8000-000000000001","index":0,"tenant":"default",
        "spec":{"engine":1,"guidance_scale":7.5,"height":128,"method":"none","model":"emoji@0",
        "negative_prompt":"","noise":"torch_cpu","prompt":"a cat","scheduler":"pndm","seed":7,
        "steps":2,"subjects":[{"indices":[2],"word":"cat"}],"width":128},
        "lane":"bulk","class":"default","lease":1,"attempt":1,"max_attempts":5}"#;
    let mut job = Job::parse(text.as_bytes()).unwrap();
    (job.id, job.index) = (JobId::new(job.batch, index), index);
    job.spec.seed = index;
    job
}
