//! What is done with a batch: paused, resumed, cancelled, changed from two tabs, run again in part,
//! and taken home.

use std::path::{Path, PathBuf};

use excite_tests::browser::{Browser, button, css, field, link, text};
use excite_tests::{eventually, guided_lines};
use serde_json::json;

use super::served::Served;
use super::{LIMIT, assert_clean, assert_texts, finished};

/// Enough work for all that a test does meanwhile.
const LONG: (usize, u32) = (12, 900);

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn a_batch_is_paused_resumed_and_cancelled() {
    let (served, browser) = (Served::start().await, Browser::start().await.unwrap());
    let id = served.submit("name=many", &guided_lines(60, 4)).await;
    browser.open(&served.page("/batches")).await.unwrap();
    browser.click(&link("many")).await.unwrap();
    browser.click(&button("Pause")).await.unwrap();
    browser.see(&text("Paused.")).await.unwrap();
    assert_texts(&browser, ".batch-progress .tag", &["paused"]).await;
    // The server knows it: it is not only the page that says so.
    browser.open(&served.page(&format!("/batches/{id}"))).await.unwrap();
    browser.see(&button("Resume")).await.unwrap();
    assert_eq!(served.get(&format!("/v1/batches/{id}")).await["state"], "paused");
    browser.click(&button("Resume")).await.unwrap();
    assert_texts(&browser, ".batch-progress .tag", &["active"]).await;
    browser.click(&button("Cancel")).await.unwrap();
    browser.click(&button("Keep it").within("dialog")).await.unwrap();
    browser.gone(&css("dialog")).await.unwrap();
    assert_eq!(served.get(&format!("/v1/batches/{id}")).await["state"], "active");
    browser.click(&button("Cancel")).await.unwrap();
    browser.click(&button("Cancel the batch")).await.unwrap();
    assert_texts(&browser, ".batch-progress .tag", &["cancelled"]).await;
    assert_clean(&browser, &served).await;
}

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn who_comes_second_is_told_what_was_changed() {
    let (served, browser) = (Served::start().await, Browser::start().await.unwrap());
    let id = served.submit("name=shared", &guided_lines(LONG.0, LONG.1)).await;
    let page = served.page(&format!("/batches/{id}"));
    browser.open(&page).await.unwrap();
    browser.see(&button("Pause")).await.unwrap();
    let first = browser.tabs().await.unwrap().remove(0);
    browser.new_tab().await.unwrap();
    browser.open(&page).await.unwrap();
    browser.click(&button("Weight")).await.unwrap();
    browser.write(&field("Weight"), "7").await.unwrap();
    browser.click(&button("Save")).await.unwrap();
    browser.gone(&css("dialog")).await.unwrap();
    assert_eq!(served.get(&format!("/v1/batches/{id}")).await["weight"], 7);

    browser.switch_to(&first).await.unwrap();
    browser.click(&button("Pause")).await.unwrap();
    let told = browser.see(&css(".notice.bad")).await.unwrap();
    assert!(told.contains("changed meanwhile: its weight went from 1 to 7"), "{told}");
    assert_eq!(served.get(&format!("/v1/batches/{id}")).await["state"], "active");
    browser.click(&button("Pause")).await.unwrap();
    assert_texts(&browser, ".batch-progress .tag", &["paused"]).await;
    // The refusal is in the console as well: Chromium notes each answer that is none.
    let complaints = browser.complaints().await.unwrap();
    assert!(complaints.iter().all(|line| line.contains("412")), "{complaints:?}");
}

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn chosen_jobs_are_run_again_with_other_seeds() {
    let (served, browser) = (Served::start().await, Browser::start().await.unwrap());
    let id = served.submit("name=first", &guided_lines(3, 4)).await;
    served.finish(&id).await;
    browser.open(&served.page(&format!("/batches/{id}"))).await.unwrap();
    browser.click(&field("Select job 0")).await.unwrap();
    browser.click(&field("Select job 2")).await.unwrap();
    assert_texts(&browser, ".selected [role=status]", &["2 jobs selected"]).await;
    browser.click(&button("Run again with other seeds")).await.unwrap();
    browser.write(&field("Seeds"), "70..72").await.unwrap();
    browser.click(&button("Submit")).await.unwrap();
    browser.see(&text("first, other seeds")).await.unwrap();
    finished(&browser).await;
    browser.click(&button("About this batch")).await.unwrap();
    browser.see(&link(&id)).await.unwrap();

    let url = browser.run("return location.pathname", json!([])).await.unwrap();
    let child = url.as_str().unwrap().strip_prefix("/batches/").unwrap();
    let jobs = served.get(&format!("/v1/batches/{child}/jobs?sort=index")).await;
    let jobs = jobs["jobs"].as_array().unwrap();
    // Both had the same prompt and differed in their seeds only: they are one line now.
    let seeds: Vec<_> = jobs.iter().map(|job| job["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [70, 71]);
    assert_clean(&browser, &served).await;
}

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn images_are_taken_home() {
    let (served, browser) = (Served::start().await, Browser::start().await.unwrap());
    let id = served.submit("", &guided_lines(3, 2)).await;
    served.finish(&id).await;
    browser.open(&served.page(&format!("/batches/{id}"))).await.unwrap();
    browser.click(&link("Download all")).await.unwrap();
    let all = download(&browser).await;
    assert_eq!(entries(&all), 6, "images and sidecars");
    std::fs::remove_file(all).unwrap();
    browser.click(&field("Select job 1")).await.unwrap();
    browser.click(&link("Download as zip")).await.unwrap();
    assert_eq!(entries(&download(&browser).await), 2);
    assert_clean(&browser, &served).await;
}

/// The one file that was downloaded, once it is whole.
async fn download(browser: &Browser) -> PathBuf {
    eventually(LIMIT, "a download", async || {
        let files = std::fs::read_dir(browser.downloads()).unwrap();
        let names: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        match &names[..] {
            [one] if one.extension().is_some_and(|end| end == "zip") => Ok(one.clone()),
            _ => Err(format!("{names:?}")),
        }
    })
    .await
    .unwrap()
}

/// How many files a ZIP file says that it has.
fn entries(zip: &Path) -> u16 {
    let bytes = std::fs::read(zip).unwrap();
    let end = bytes.windows(4).rposition(|four| four == b"PK\x05\x06").unwrap();
    u16::from_le_bytes([bytes[end + 10], bytes[end + 11]])
}
