//! Many objects at a time: listed, counted, taken away; and what their names say.

use excite_jobs::BatchId;
use excite_jobs::store::{Store, StoreError};

/// When a batch was begun, in seconds since 1970, as its name says.
pub(crate) fn begun_at(batch: BatchId) -> i64 {
    let hex: String = batch.to_string().chars().filter(|c| *c != '-').take(12).collect();
    i64::from_str_radix(&hex, 16).unwrap_or(0) / 1000
}

/// Where a listing goes on: behind all that a folder holds.
pub(crate) fn behind(key: &str) -> String {
    match key.strip_suffix('/') {
        // The character behind `/`.
        Some(folder) => format!("{folder}0"),
        None => key.to_owned(),
    }
}

/// Calls `visit` with the keys behind a prefix, a page at a time.
pub(crate) async fn pages(
    store: &dyn Store,
    prefix: &str,
    mut visit: impl AsyncFnMut(Vec<String>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let page = store.list(prefix, after.as_deref(), false).await?;
        let last = page.keys.last().cloned();
        visit(page.keys).await?;
        match last {
            Some(last) if page.more => after = Some(last),
            _ => return Ok(()),
        }
    }
}

/// Takes all objects behind a prefix away, but for one; says how many.
pub(crate) async fn delete_all(
    store: &dyn Store,
    prefix: &str,
    keep: Option<&str>,
) -> Result<u64, StoreError> {
    let mut gone = 0;
    pages(store, prefix, async |keys| {
        let keys: Vec<String> = keys.into_iter().filter(|key| Some(key.as_str()) != keep).collect();
        gone += keys.len() as u64;
        store.delete(&keys).await
    })
    .await?;
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when() {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        assert!((now - begun_at(BatchId::new())).abs() < 5);
        let id: BatchId = "0192d7a0-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(begun_at(id), 0x0192_d7a0_0000_i64 / 1000);
        assert!(behind("batches/x/") > "batches/x/z".to_owned());
        assert_eq!(behind("active/x"), "active/x");
    }
}
