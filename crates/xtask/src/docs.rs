//! `cargo xtask docs`: draws the pictures of `docs/images` again.
//!
//! Not the texts: `cargo xtask test` checks that the pictures they show are there.

use anyhow::{Context, Result};

use crate::project::{self, Project};

/// Where the commands write; what is shown is copied from here.
const MADE: &str = "target/docs";

/// A command and the pictures it makes.
struct Drawing {
    /// Arguments of `cargo run --release`.
    run: &'static [&'static str],
    /// A file in `target/docs` and its name in `docs/images`.
    pictures: &'static [(&'static str, &'static str)],
}

#[rustfmt::skip]
const DRAWINGS: &[Drawing] = &[
    Drawing {
        run: &["-p", "excite", "--", "generate", "a lion and a elephant", "--seeds", "0,3", "--compare",
            "--overwrite", "--out", "target/docs/readme"],
        pictures: &[("readme/a-lion-and-a-elephant-compare.png", "lion-elephant.png")],
    },
    Drawing {
        run: &["-p", "excite", "--", "generate", "a cat and a frog", "--seeds", "8,9", "--compare",
            "--overwrite", "--out", "target/docs/readme"],
        pictures: &[("readme/a-cat-and-a-frog-compare.png", "cat-frog.png")],
    },
    Drawing {
        run: &["-p", "excite", "--", "generate", "a lion and a elephant", "--seeds", "0..6", "--compare",
            "--attention", "--overwrite", "--out", "target/docs/method"],
        pictures: &[
            ("method/a-lion-and-a-elephant-compare.png", "uncurated.png"),
            ("method/a-lion-and-a-elephant-0-steps.png", "steps.png"),
        ],
    },
    Drawing {
        run: &["-p", "excite", "--", "explain", "target/docs/method/a-lion-and-a-elephant-0.png",
            "--chart", "target/docs/scores.png"],
        pictures: &[("scores.png", "scores.png")],
    },
    Drawing {
        run: &["-p", "excite-diffusion", "--example", "method_figures", "--", "models/emoji", MADE],
        pictures: &[("map.png", "map.png"), ("loss.png", "loss.png")],
    },
];

/// Runs the commands and copies their pictures.
pub(crate) fn run(project: &Project) -> Result<()> {
    let (made, shown) = (project.path(MADE), project.path("docs/images"));
    std::fs::create_dir_all(&shown).context("cannot make docs/images")?;
    for drawing in DRAWINGS {
        project::run(project.cargo(&["run", "--release"]).args(drawing.run))?;
        for (from, to) in drawing.pictures {
            std::fs::copy(made.join(from), shown.join(to)).with_context(|| {
                format!("cannot copy {MADE}/{from} to docs/images/{to}: is it still made?")
            })?;
            println!("docs/images/{to}");
        }
    }
    Ok(())
}
