//! Many objects at a time: listed, counted, taken away; and what their names say.

use std::fmt::Display;

use excite_jobs::store::{Store, StoreError};

/// When a batch or an upload was begun, in seconds since 1970, as its name says.
pub(crate) fn begun_at(id: impl Display) -> i64 {
    let hex: String = id.to_string().chars().filter(|c| *c != '-').take(12).collect();
    i64::from_str_radix(&hex, 16).unwrap_or(0) / 1000
}

/// Takes all objects behind a prefix away, but for one; says how many.
pub(crate) async fn delete_all(
    store: &dyn Store,
    prefix: &str,
    keep: Option<&str>,
) -> Result<u64, StoreError> {
    let mut gone = 0;
    let mut after: Option<String> = None;
    loop {
        let page = store.list(prefix, after.as_deref(), false).await?;
        after = page.keys.last().filter(|_| page.more).cloned();
        let keys: Vec<String> =
            page.keys.into_iter().filter(|key| Some(key.as_str()) != keep).collect();
        if !keys.is_empty() {
            gone += keys.len() as u64;
            store.delete(&keys).await?;
        }
        if after.is_none() {
            return Ok(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use excite_jobs::BatchId;

    use super::*;

    #[test]
    fn a_name_says_when() {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        assert!((now - begun_at(BatchId::new())).abs() < 5);
        let id: BatchId = "0192d7a0-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(begun_at(id), 0x0192_d7a0_0000_i64 / 1000);
    }
}
