//! What everybody does first: open the page, submit prompts, watch the images come, look at one.

use excite_tests::browser::{Browser, button, css, field, link};
use serde_json::json;

use super::served::Served;
use super::{assert_clean, assert_texts};

/// What could be markup stays text.
const MARKUP: &str = "<img src=x onerror=alert(1)>";

/// The progress, and the thumbnails as they were drawn.
const ALL_MADE: &str = "
const said = document.querySelector('.batch-progress .summary')?.innerText ?? 'no progress';
const images = [...document.querySelectorAll('.gallery img')];
const drawn = images.filter((image) => image.complete && image.naturalWidth > 0).length;
return said.includes('100 %') && drawn === 4 ? true : `${said}, ${drawn} images`;
";

/// Two images that were drawn, a heat map for each subject, curves, and what happened.
const ALL_SHOWN: &str = "
const drawn = [...document.querySelectorAll('.images img')]
  .filter((image) => image.complete && image.naturalWidth > 0).length;
// Read from a copy, for Chromium would complain about a canvas that is read and drawn on in turn.
const painted = (canvas) => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext('2d', { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  return context.getImageData(0, 0, copy.width, copy.height).data.some((n) => n > 0);
};
const count = (selector) => [...document.querySelectorAll(selector)].filter(painted).length;
const timeline = document.querySelector('.timeline')?.innerText ?? 'no timeline';
const found = [drawn, count('.heat canvas'), count('.chart canvas')];
return String(found) === '2,2,2' && timeline.includes('stored') ? true : `${found} ${timeline}`;
";

#[tokio::test]
async fn prompts_become_images_before_ones_eyes() {
    let served = Served::start().await;
    let browser = Browser::start().await.unwrap();
    browser.open(&served.url).await.unwrap();
    browser.click(&link("Submit a batch")).await.unwrap();
    let prompts = format!("a cat and a frog\na dog and a bear {MARKUP}");
    browser.write(&field("Prompts"), &prompts).await.unwrap();

    // The subjects that were found, and those one makes of them.
    assert_texts(&browser, ".word.subject", &["cat", "frog", "dog", "src"]).await;
    browser.click(&button("src")).await.unwrap();
    browser.click(&button("bear")).await.unwrap();
    assert_texts(&browser, ".word.subject", &["cat", "frog", "dog", "bear"]).await;

    browser.write(&field("Steps"), "4").await.unwrap();
    browser.click(&field("Compare with plain SD")).await.unwrap();
    browser.click(&button("Check")).await.unwrap();
    let images = css("section[aria-labelledby=checked] .figure");
    assert_eq!(browser.see(&images).await.unwrap(), "Images\n4\nof 2 lines");
    browser.run("window.here = true", json!([])).await.unwrap();
    browser.click(&button("Submit 4 jobs")).await.unwrap();
    browser.until("all four images", ALL_MADE).await.unwrap();

    let guided = css(".shot:not(:has(.plain-mark)) > a[title*=onerror]");
    browser.click(&guided).await.unwrap();
    browser.until("all about the job", ALL_SHOWN).await.unwrap();
    let prompt = browser.see(&css(".prompt")).await.unwrap();
    assert_eq!(prompt, format!("a dog and a bear {MARKUP}"));
    let stayed = browser.run("return window.here === true", json!([])).await.unwrap();
    assert_eq!(stayed, true, "the page was loaded anew");
    assert_clean(&browser, &served).await;
}
