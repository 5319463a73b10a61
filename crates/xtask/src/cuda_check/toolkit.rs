//! CUDA's compiler, headers and libraries: a toolkit that is installed, or Python packages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::project::{self, Project};

const REQUIREMENTS: &str = "tests/gpu/cuda-requirements.txt";
/// What the packages do not have: names that a linker looks for.
const LINKS: [&str; 5] =
    ["cublas.so.13", "cublasLt.so.13", "curand.so.10", "nvrtc.so.13", "cudart.so.13"];
/// CUDA's functions in cudarc's declarations begin so.
const DECLARATION: &str = "fn cu";

/// A place that has `bin/nvcc`.
pub(super) struct Toolkit {
    home: PathBuf,
    /// Where the stub of the driver's library lies; the real one comes with the driver.
    stubs: PathBuf,
}

impl Toolkit {
    /// What CUDA_HOME names, else the packages in a virtual environment below `folder`.
    pub(super) fn find(project: &Project, folder: &Path, cudarc: &Path) -> Result<Self> {
        let named = std::env::var_os("CUDA_HOME").filter(|home| !home.is_empty());
        let home = match named {
            Some(home) => {
                let home = PathBuf::from(home);
                if !home.join("bin/nvcc").is_file() {
                    let home = home.display();
                    bail!("CUDA_HOME is {home}, which has no bin/nvcc; name another or unset it");
                }
                home
            }
            None => packages(project, &folder.join("venv"))?,
        };
        let stubs = folder.join("stubs");
        stub(project, cudarc, &stubs)?;
        Ok(Self { home, stubs })
    }

    /// What nvcc says of itself.
    pub(super) fn version(&self, project: &Project) -> Result<String> {
        let said = project::output(project.command(self.home.join("bin/nvcc")).arg("--version"))?;
        let release = said.lines().find(|line| line.contains("release"));
        Ok(format!("nvcc in {}: {}", self.home.display(), release.unwrap_or("no version").trim()))
    }

    /// The environment in which cargo builds with it.
    pub(super) fn set(&self, cargo: &mut Command) {
        let join = |name: &str, first: &[PathBuf]| {
            let old = std::env::var_os(name).unwrap_or_default();
            let all = first.iter().cloned().chain(std::env::split_paths(&old));
            std::env::join_paths(all.filter(|path| !path.as_os_str().is_empty())).unwrap_or(old)
        };
        let lib = ["lib", "lib64"].map(|lib| self.home.join(lib));
        cargo.env("CUDA_HOME", &self.home).env("CUDA_PATH", &self.home);
        cargo.env("PATH", join("PATH", &[self.home.join("bin")]));
        // What the linker reads; the stub must not be found when a program starts.
        let [lib, lib64] = lib;
        cargo.env("LIBRARY_PATH", join("LIBRARY_PATH", &[lib, lib64, self.stubs.clone()]));
    }
}

fn packages(project: &Project, environment: &Path) -> Result<PathBuf> {
    let python = environment.join("bin/python");
    let run = |program: &Path, args: &[&str]| {
        let errors = Stdio::from(std::io::stderr());
        project::run(project.command(program).args(args).stdout(errors))
    };
    if !python.exists() {
        let path = environment.to_str().context("the path of the checkout is no Unicode")?;
        run(Path::new("python3"), &["-m", "venv", path])?;
    }
    let asked = std::fs::read_to_string(project.path(REQUIREMENTS))
        .with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    // pip takes seconds to find that all is there.
    let noted = environment.join("installed.txt");
    if std::fs::read_to_string(&noted).is_ok_and(|installed| installed == asked) {
        return home_in(project, &python);
    }
    eprintln!("Installing CUDA's compiler and libraries into {}, once.", environment.display());
    let packages = "The packages are NVIDIA's, under NVIDIA's licence; they are not passed on.";
    eprintln!("{packages} This downloads 1.2 GB.");
    run(&python, &["-m", "pip", "install", "--quiet", "--no-deps", "-r", REQUIREMENTS])?;
    let home = home_in(project, &python)?;
    for library in LINKS {
        link(&home.join("lib"), library)?;
    }
    std::fs::write(&noted, asked).with_context(|| format!("cannot write {}", noted.display()))?;
    Ok(home)
}

/// The packages share one folder, as a toolkit that is installed.
fn home_in(project: &Project, python: &Path) -> Result<PathBuf> {
    let where_is = "import sysconfig; print(sysconfig.get_paths()['purelib'])";
    let site = project::output(project.command(python).args(["-c", where_is]))?;
    let home = Path::new(site.trim()).join("nvidia/cu13");
    if !home.join("bin/nvcc").is_file() {
        bail!("the packages of {REQUIREMENTS} have no bin/nvcc in {}", home.display());
    }
    Ok(home)
}

/// `libX.so` for `libX.so.13`.
fn link(folder: &Path, library: &str) -> Result<()> {
    let target = format!("lib{library}");
    let (name, _) = target.rsplit_once('.').context("a library without a version")?;
    let path = folder.join(name);
    if path.exists() {
        return Ok(());
    }
    std::os::unix::fs::symlink(&target, &path)
        .with_context(|| format!("cannot link {}", path.display()))
}

/// A libcuda with an empty function for each that is declared, to link against.
fn stub(project: &Project, cudarc: &Path, folder: &Path) -> Result<()> {
    if folder.join("libcuda.so").exists() {
        return Ok(());
    }
    let declarations = cudarc.join("src/driver/sys");
    let mut names = BTreeSet::new();
    let listed = std::fs::read_dir(&declarations)
        .with_context(|| format!("cannot list {}", declarations.display()))?;
    for entry in listed {
        let path = entry.context("cannot list cudarc's declarations")?.path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            names.extend(functions(&text));
        }
    }
    std::fs::create_dir_all(folder).context("cannot make the folder of the stub")?;
    let source = folder.join("stub.c");
    let text: String = names.iter().map(|name| format!("void {name}(void) {{}}\n")).collect();
    std::fs::write(&source, text).context("cannot write the stub")?;
    let mut compiler = project.command("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o"]);
    compiler.arg(folder.join("libcuda.so")).arg(&source);
    project::run(&mut compiler).context("the stub of libcuda does not compile")
}

/// The driver's functions that are declared in a file: `fn cuInit(`.
fn functions(text: &str) -> impl Iterator<Item = String> + '_ {
    text.match_indices(DECLARATION).filter_map(|(at, _)| {
        let name: String = text[at + "fn ".len()..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let begins = name.as_bytes().get(2).is_some_and(u8::is_ascii_uppercase);
        begins.then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_has_the_driver_s_functions() {
        let text = "pub fn cuInit(Flags: c_uint) -> CUresult;\npub unsafe fn cuMemAlloc_v2(p: *mut T);\n\
                    fn cuda_thing(); fn cu(); let x = fn_cuX;";
        assert_eq!(functions(text).collect::<Vec<_>>(), ["cuInit", "cuMemAlloc_v2"]);
    }
}
