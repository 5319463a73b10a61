//! The dashboard in a real browser: `excite serve` as people start it, and Chromium in front of it.
//!
//! Every test has a server, data and a browser of its own. Not here: what the server answers
//! (`dispatcher/tests/http`). What takes longer than the first batch is ignored unless asked for:
//! `cargo test --workspace -- --ignored`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says why by ending")]

mod axe;
mod batch;
mod connection;
mod dead;
mod first_batch;
mod keyboard;
mod scene;
mod served;
mod tokens;
mod views;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use excite_tests::browser::{Browser, css};
use excite_tests::eventually;
use served::Served;

/// No page takes longer for anything, not even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until what a CSS selector finds has these texts.
async fn assert_texts(browser: &Browser, selector: &str, wanted: &[&str]) {
    let what = format!("{wanted:?}");
    let so = eventually(LIMIT, &what, async || {
        let found = browser.texts(&css(selector)).await?;
        if found == wanted { Ok(()) } else { bail!("{found:?}") }
    });
    so.await.unwrap();
}

/// Waits until the page says that its batch is finished.
async fn finished(browser: &Browser) {
    let so = "
        const said = document.querySelector('.batch-progress .summary')?.innerText ?? 'no progress';
        return /finished\\s*100 %/.test(said) ? true : said;";
    browser.until("the end of the batch", so).await.unwrap();
}

/// Where cargo builds, for what is kept from one run to the next.
fn target() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    here.ancestors().nth(3).unwrap().to_owned()
}

/// Where a picture of what is seen goes, for people to look at.
fn picture(name: &str) -> PathBuf {
    let folder = target().join("screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{name}.png"))
}

/// Nothing was said in the console, and nothing came from elsewhere.
async fn assert_clean(browser: &Browser, served: &Served) {
    assert_eq!(browser.complaints().await.unwrap(), [""; 0], "the console");
    let loaded = "return performance.getEntriesByType('resource').map((entry) => entry.name)";
    let loaded = browser.run(loaded, serde_json::json!([])).await.unwrap();
    let loaded: Vec<String> = serde_json::from_value(loaded).unwrap();
    assert!(!loaded.is_empty());
    // What a page draws itself has no address on a server.
    let ours = |name: &&String| name.starts_with(&served.url) || name.starts_with("data:");
    let strange: Vec<_> = loaded.iter().filter(|name| !ours(name)).collect();
    assert!(strange.is_empty(), "from elsewhere: {strange:?}");
}
