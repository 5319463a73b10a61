//! A job that died: why, and replayed once the cause is mended.

use excite_tests::browser::{Browser, button, css, link};

use super::scene::Scene;
use super::{assert_clean, assert_texts, finished};

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn a_dead_job_is_seen_by_its_reason_and_replayed() {
    let scene = Scene::set(&[], None).await;
    let browser = Browser::start().await.unwrap();
    browser.open(&scene.served.url).await.unwrap();
    browser.click(&css("#places [href='/dead']")).await.unwrap();
    let group = browser.see(&css(".dead-group")).await.unwrap();
    for part in ["attempts", "2 jobs", "It failed as often as it may"] {
        assert!(group.contains(part), "{part}: {group}");
    }
    // The job itself says the same.
    browser.click(&link("job 0")).await.unwrap();
    let state = browser.see(&css(".job-state")).await.unwrap();
    assert!(state.contains("Dead: attempts.") && state.contains("other"), "{state}");
    let timeline = browser.see(&css(".timeline")).await.unwrap();
    assert!(timeline.contains("the model other@"), "code has no backticks: {timeline}");
    browser.run("history.back()", serde_json::json!([])).await.unwrap();

    scene.mend();
    browser.click(&button("Replay all 2")).await.unwrap();
    browser.see(&css(".empty")).await.unwrap();
    assert_texts(&browser, "#places [href='/dead']", &["Dead jobs"]).await;
    browser.open(&scene.served.page(&format!("/batches/{}", scene.dead))).await.unwrap();
    finished(&browser).await;
    let thumbnails = "
        const images = [...document.querySelectorAll('.gallery img')];
        const drawn = images.filter((image) => image.complete && image.naturalWidth > 0).length;
        return drawn === 2 ? true : `${drawn} images`;";
    browser.until("both images", thumbnails).await.unwrap();
    assert_clean(&browser, &scene.served).await;
}
