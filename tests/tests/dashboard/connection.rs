//! What the page does when it cannot hear the server, and when the clock before it is wrong.

use excite_tests::browser::{Browser, css, text};
use excite_tests::guided_lines;
use serde_json::json;

use super::served::Served;
use super::{assert_texts, finished};

const LOST: &str = "Connection lost, trying again.";

/// A clock that is wrong by some milliseconds, from before the page begins.
const WRONG_CLOCK: &str = "
const Right = Date;
globalThis.Date = class extends Right {
  constructor(...parts) {
    if (parts.length) super(...parts);
    else super(Right.now() + WRONG_BY);
  }
  static now() {
    return Right.now() + WRONG_BY;
  }
};";

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn a_page_goes_on_by_itself_when_the_server_is_back() {
    let (mut served, browser) = (Served::start().await, Browser::start().await.unwrap());
    let id = served.submit("", &guided_lines(8, 10)).await;
    browser.open(&served.page(&format!("/batches/{id}"))).await.unwrap();
    browser.run("window.here = true", json!([])).await.unwrap();
    browser.see(&css(".gallery img")).await.unwrap();
    served.kill();
    browser.see(&text(LOST)).await.unwrap();
    served.start_again().await;
    browser.gone(&text(LOST)).await.unwrap();
    served.finish(&id).await;
    finished(&browser).await;
    let stayed = browser.run("return window.here === true", json!([])).await.unwrap();
    assert_eq!(stayed, true, "the page was loaded anew");
    let all = "return document.querySelectorAll('.gallery img').length === 8";
    browser.until("all images", all).await.unwrap();
}

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn a_page_without_a_network_says_so_and_can_be_told_to_try() {
    let (served, browser) = (Served::start().await, Browser::start().await.unwrap());
    browser.open(&served.page("/workers")).await.unwrap();
    browser.see(&css(".worker")).await.unwrap();
    browser.offline(true).await.unwrap();
    browser.see(&text(LOST)).await.unwrap();
    browser.offline(false).await.unwrap();
    // It may have tried already.
    let now = "document.querySelector('#banner button')?.click()";
    browser.run(now, json!([])).await.unwrap();
    browser.gone(&text(LOST)).await.unwrap();
    browser.see(&css(".worker")).await.unwrap();
}

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn ages_are_right_whatever_the_browsers_clock_says() {
    const DAY: i64 = 24 * 3600 * 1000;
    let served = Served::start().await;
    let id = served.submit("", &guided_lines(1, 2)).await;
    served.finish(&id).await;
    for wrong_by in [3 * DAY, -400 * DAY] {
        let browser = Browser::start().await.unwrap();
        let clock = WRONG_CLOCK.replace("WRONG_BY", &wrong_by.to_string());
        let script = json!({ "source": clock });
        browser.cdp("Page.addScriptToEvaluateOnNewDocument", script).await.unwrap();
        for (page, ages) in [("/batches", 1), ("/workers", 1), (&format!("/batches/{id}"), 2)] {
            browser.open(&served.page(page)).await.unwrap();
            let there = format!(
                "const now = Math.abs(Date.now() - performance.timeOrigin) > {DAY};
                 const ages = [...document.querySelectorAll('time[data-ago]')].map((t) => t.textContent);
                 const good = ages.every((t) => /^(just now|[0-9.]+ (s|min) ago)$/.test(t));
                 return now && good && ages.length === {ages} ? true : [now, ages].join();"
            );
            browser.until("sensible ages", &there).await.unwrap();
        }
        // What is drawn over time ends now, too.
        browser.open(&served.url).await.unwrap();
        assert_texts(&browser, "#newest", &["Newest batches"]).await;
        assert_eq!(browser.complaints().await.unwrap(), [""; 0]);
    }
}
