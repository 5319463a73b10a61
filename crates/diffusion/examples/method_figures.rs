//! Draws the figures of `docs/method.md` that show the inside of the method: how a map becomes a
//! score, and what an update does to the loss. `cargo xtask docs` calls it.
//!
//!     cargo run --release -p excite-diffusion --example method_figures -- models/emoji docs/images

use std::error::Error;
use std::path::{Path, PathBuf};

use excite_diffusion::picture::chart::{Chart, Series};
use excite_diffusion::picture::sheet::{Cell, contact_sheet};
use excite_diffusion::picture::{Picture, heat};
use excite_diffusion::{Folder, Model, Outputs, Rendered, Run, Subjects};
use excite_jobs::{Line, Method, Spec};

const JOB: &str = r#"{"prompt": "a lion and a elephant", "seed": 0}"#;
/// The step whose map is shown: guidance has begun to act, the picture is still noise.
const STEP: usize = 4;
/// Pixels along a side of a drawn map.
const SIDE: u32 = 192;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(model), Some(out)) = (args.next(), args.next()) else {
        return Err("usage: method_figures MODEL DIRECTORY".into());
    };
    let model = Model::load(&Folder::Directory(model))?;
    let spec = spec(&model)?;
    let guided = render(&model, &spec)?;
    let plain = render(&model, &Spec { method: Method::None, ..spec.clone() })?;
    std::fs::create_dir_all(&out)?;
    write(&out.join("map.png"), &stages(&model, &guided)?)?;
    write(&out.join("loss.png"), &losses(&guided, &plain).draw())
}

fn spec(model: &Model) -> Result<Spec> {
    let resolved = Line::parse(JOB)?.resolve(&model.facts(), model.tokenizer())?;
    resolved.specs().next().ok_or_else(|| "no spec".into())
}

fn render(model: &Model, spec: &Spec) -> Result<Rendered> {
    let outputs = Outputs { latents: true, maps: true };
    let run = Run::start(model, std::slice::from_ref(spec), outputs)?;
    let rendered = run.complete(&|| false, |_| ())?;
    rendered.into_iter().next().ok_or_else(|| "no image".into())
}

/// One row a subject: its map as captured, after the second softmax, after smoothing.
fn stages(model: &Model, guided: &Rendered) -> Result<Picture> {
    let Method::AttendAndExcite(params) = &guided.spec.method else {
        return Err("the image is not guided".into());
    };
    let latents = guided.record.latents()[STEP - 1].unsqueeze(0)?;
    let text = model.text_states(&guided.spec.prompt)?;
    let pixels = (guided.spec.height as usize, guided.spec.width as usize);
    let conditioning = model.unet().condition(&text, pixels)?;
    let timestep = guided.record.timesteps()[STEP];
    let map = model.unet().map(&latents, timestep, &conditioning)?.get(0)?;
    let size = guided.record.observed()[STEP].size;
    let eot = model.encode(&guided.spec.prompt)?.eot;
    let subjects = Subjects::new(params, &guided.spec.subjects, eot)?;
    let mut rows = Vec::new();
    for (s, subject) in guided.spec.subjects.iter().enumerate() {
        let stages = subjects.stages(&map, size, s)?;
        let cells = [stages.attention, stages.sharpened, stages.smoothed].map(|values| {
            let black = Picture::filled(SIDE, SIDE, [0; 3]);
            let largest = values.iter().copied().fold(0., f32::max);
            let caption = format!("largest {largest:.3}");
            Some(Cell { picture: heat::overlay(&black, &values, size), caption })
        });
        rows.push((subject.word.clone(), cells.to_vec()));
    }
    let columns = ["1. captured", "2. second softmax", "3. smoothed"].map(str::to_owned);
    let title = format!("\"{}\", seed {}, step {STEP}", guided.spec.prompt, guided.spec.seed);
    Ok(contact_sheet(&title, &columns, &rows))
}

/// The loss of the latents that enter a step, of those that leave the update, and of plain
/// sampling.
fn losses(guided: &Rendered, plain: &Rendered) -> Chart {
    let least = |scores: &[f32]| scores.iter().copied().fold(f32::INFINITY, f32::min);
    let observed = |rendered: &Rendered| {
        rendered.record.observed().iter().map(|seen| 1. - least(&seen.scores)).collect()
    };
    let before = guided.record.steps().iter();
    let before = before.map(|step| step.evaluations.first().map_or(f32::NAN, |(loss, _)| *loss));
    let series = [
        ("plain", observed(plain)),
        ("before the update", before.collect()),
        ("after the update", observed(guided)),
    ];
    Chart {
        title: format!("\"{}\", seed {}", guided.spec.prompt, guided.spec.seed),
        x_label: "step".into(),
        y_label: "loss (1 - score of the weakest subject)".into(),
        series: series.map(|(label, values)| Series { label: label.into(), values }).into(),
        markers: vec![(25, "guidance ends".into())],
    }
}

fn write(path: &Path, picture: &Picture) -> Result<()> {
    Ok(std::fs::write(path, picture.to_png(&[])?)?)
}
