//! The submit form without a mouse: every control is reached, seen to be reached, and obeys.

use excite_tests::browser::{Browser, ENTER, LEFT, RIGHT, TAB, css, link};
use excite_tests::eventually;
use serde_json::{Value, json};

use super::served::Served;
use super::{LIMIT, assert_clean, assert_texts, finished};

/// More than the form has controls.
const TABS_MAX: usize = 80;

/// The name of what has the focus, its place among the form's controls, and whether one sees it.
const FOCUSED: &str = "
const at = document.activeElement;
const shown = (e) => e.checkVisibility({ visibilityProperty: true });
// Of the choices in a row one has the focus, and arrow keys lead to the others.
const stops = [...document.querySelectorAll('.submit-form :is(input, select, textarea, button, summary)')]
  .filter((e) => shown(e) && !e.disabled && !(e.type === 'radio' && !e.checked));
const box = at.getBoundingClientRect();
const style = getComputedStyle(at.type === 'radio' ? at.nextElementSibling : at);
return {
  name: (at.getAttribute('aria-label') ?? at.labels?.[0]?.textContent ?? at.textContent).trim(),
  place: stops.indexOf(at),
  places: stops.length,
  seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 &&
    box.top >= 0 && box.bottom <= innerHeight,
};
";

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn every_control_of_the_form_is_reached_and_seen_to_be() {
    let (served, browser) = (Served::start().await, Browser::start().await.unwrap());
    for (presses, source) in ["Prompts", "File or lines", "Matrix"].into_iter().enumerate() {
        browser.open(&served.page("/submit")).await.unwrap();
        browser.see(&css("form.submit-form")).await.unwrap();
        tab_to(&browser, "Prompts").await;
        for _ in 0..presses {
            browser.press(RIGHT).await.unwrap();
        }
        assert_eq!(focused(&browser).await["name"], source);
        if source == "Prompts" {
            tab_to(&browser, "Prompts").await;
            browser.press("a cat and a frog").await.unwrap();
            assert_texts(&browser, ".word.subject", &["cat", "frog"]).await;
        }
        tab_to(&browser, "More options").await;
        browser.press(ENTER).await.unwrap();
        browser.see(&css("details[open]")).await.unwrap();
        // From the top again, once around.
        browser.run("document.activeElement.blur(); scrollTo(0, 0)", json!([])).await.unwrap();
        browser.run("document.querySelector('.skip').focus()", json!([])).await.unwrap();
        let mut reached = Vec::new();
        let mut places = 0;
        for _ in 0..TABS_MAX {
            browser.press(TAB).await.unwrap();
            let at = focused(&browser).await;
            places = at["places"].as_u64().unwrap();
            let Some(place) = at["place"].as_u64() else { continue };
            assert_eq!(at["seen"], true, "{source}: one does not see the focus: {at}");
            if reached.contains(&place) {
                break;
            }
            reached.push(place);
        }
        let all: Vec<u64> = (0..places).collect();
        assert_eq!(reached, all, "{source}: in the order of the page");
    }
    assert_clean(&browser, &served).await;
}

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn a_batch_is_submitted_without_a_mouse() {
    let (served, browser) = (Served::start().await, Browser::start().await.unwrap());
    browser.open(&served.page("/")).await.unwrap();
    browser.see(&link("Submit a batch")).await.unwrap();
    tab_to(&browser, "Submit a batch").await;
    browser.press(ENTER).await.unwrap();
    browser.see(&css("form.submit-form")).await.unwrap();
    tab_to(&browser, "Prompts").await;
    browser.press(RIGHT).await.unwrap();
    assert_eq!(focused(&browser).await["name"], "File or lines");
    browser.press(LEFT).await.unwrap();
    assert_eq!(focused(&browser).await["name"], "Prompts");
    tab_to(&browser, "Prompts").await;
    browser.press("a cat and a frog").await.unwrap();
    assert_texts(&browser, ".word.subject", &["cat", "frog"]).await;
    tab_to(&browser, "frog").await;
    browser.press(" ").await.unwrap();
    assert_texts(&browser, ".word.subject", &["cat"]).await;
    // The focus stays where it was, although the words were drawn anew.
    browser.press(ENTER).await.unwrap();
    assert_texts(&browser, ".word.subject", &["cat", "frog"]).await;
    tab_to(&browser, "Steps").await;
    browser.press("4").await.unwrap();
    tab_to(&browser, "Compare with plain SD").await;
    browser.press(" ").await.unwrap();
    tab_to(&browser, "Check").await;
    browser.press(ENTER).await.unwrap();
    browser.see(&css("#checked")).await.unwrap();
    tab_to(&browser, "Submit 2 jobs").await;
    browser.press(" ").await.unwrap();
    finished(&browser).await;
    // The images are one stop; Enter opens the one that arrow keys lead to.
    tab_to(&browser, "").await;
    let image = "return document.activeElement.matches('.shot a')";
    assert_eq!(browser.run(image, json!([])).await.unwrap(), true);
    browser.press(RIGHT).await.unwrap();
    browser.press(ENTER).await.unwrap();
    browser.see(&css(".timeline")).await.unwrap();
    assert_clean(&browser, &served).await;
}

async fn focused(browser: &Browser) -> Value {
    browser.run(FOCUSED, json!([])).await.unwrap()
}

/// Presses Tab until something of a name has the focus.
async fn tab_to(browser: &Browser, name: &str) {
    let mut tabs = 0;
    let what = format!("the focus on {name}");
    let there = eventually(LIMIT, &what, async || {
        tabs += 1;
        assert!(tabs <= TABS_MAX, "no Tab leads to {name}");
        browser.press(TAB).await.unwrap();
        let at = focused(browser).await;
        if at["name"] == name { Ok(()) } else { Err(at.to_string()) }
    });
    there.await.unwrap();
}
