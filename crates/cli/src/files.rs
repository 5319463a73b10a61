//! Files that are there whole or not at all.

use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::fault::Fault;

/// Makes the folder and finds out whether files can be written there, before hours of work.
pub(crate) fn prepare_folder(folder: &Path) -> Result<(), Fault> {
    std::fs::create_dir_all(folder).map_err(|e| Fault::io("create the folder", folder, &e))?;
    temporary(folder).map(drop)
}

/// Writes under another name and renames, so that no reader and no crash sees half a file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = temporary(folder)?;
    let failed = |e: &std::io::Error| Fault::io("write", path, e);
    file.write_all(bytes).map_err(|e| failed(&e))?;
    file.as_file().sync_all().map_err(|e| failed(&e))?;
    file.persist(path).map_err(|e| failed(&e.error))?;
    Ok(())
}

fn temporary(folder: &Path) -> Result<tempfile::NamedTempFile, Fault> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".excite-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private by default; a picture is as public as the umask lets it.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder).map_err(|e| Fault::io("write into the folder", folder, &e))
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
