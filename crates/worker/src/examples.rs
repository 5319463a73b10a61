//! Jobs for tests.

use std::collections::HashMap;

use excite_diffusion::Checkpoint;
use excite_jobs::{Job, JobId};
use safetensors::tensor::{Dtype, TensorView};

use crate::task::Task;

/// The same, to be run from its beginning.
pub(crate) fn task(index: u32) -> Task {
    Task::new(job(index))
}

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

/// A state after `step` steps, of no image that there is.
pub(crate) fn checkpoint(step: usize) -> Checkpoint {
    let texts = [("fingerprint", "0".to_owned()), ("kind", "test".to_owned())];
    let mut texts: HashMap<String, String> =
        texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
    texts.insert("next_step".into(), step.to_string());
    let latents = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    let bytes = safetensors::serialize([("latent", latents)], Some(texts)).unwrap();
    Checkpoint::from_bytes(&bytes).unwrap()
}
