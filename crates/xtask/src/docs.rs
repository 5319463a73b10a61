//! `cargo xtask docs`: draws the pictures of `docs/images` again.
//!
//! Not the texts: `cargo xtask test` checks that the pictures they show are there.

use anyhow::{Context, Result};

use crate::project::{self, Project};

/// A command and the pictures it makes.
struct Drawing {
    /// Arguments of cargo; what they make goes into `target/docs`.
    cargo: &'static [&'static str],
    /// A file in `target/docs` and its name in `docs/images`.
    pictures: &'static [(&'static str, &'static str)],
}

const DRAWINGS: &[Drawing] = &[Drawing {
    cargo: &[
        "run",
        "--release",
        "-p",
        "excite",
        "--",
        "generate",
        "a lion and a elephant",
        "a cat and a frog",
        "--seeds",
        "0..4",
        "--compare",
        "--attention",
        "--overwrite",
        "--out",
        "target/docs",
    ],
    pictures: &[("a-lion-and-a-elephant-compare.png", "compare.png")],
}];

/// Runs the commands and copies their pictures.
pub(crate) fn run(project: &Project) -> Result<()> {
    let (made, shown) = (project.path("target/docs"), project.path("docs/images"));
    std::fs::create_dir_all(&shown).context("cannot make docs/images")?;
    for drawing in DRAWINGS {
        project::run(&mut project.cargo(drawing.cargo))?;
        for (from, to) in drawing.pictures {
            std::fs::copy(made.join(from), shown.join(to)).with_context(|| {
                format!("cannot copy target/docs/{from} to docs/images/{to}: is it still made?")
            })?;
            println!("docs/images/{to}");
        }
    }
    Ok(())
}
