//! Who signs in sees what the token may do, and nothing else; a token that is taken away is told.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use excite_tests::browser::{Browser, button, css, field, link, text};
use excite_tests::{built, guided_lines};
use serde_json::{Value, json};

use super::picture;
use super::scene::Scene;
use super::served::Served;
use super::views::views;

/// All that can be pressed or filled in, but links that only lead elsewhere.
const CONTROLS: &str = "
const shown = (e) => e.checkVisibility({ visibilityProperty: true });
const controls = 'button, summary, a.button, a.submit, form, input[type=checkbox]';
return [...document.querySelectorAll(controls)].filter(shown).map((e) =>
  e.tagName === 'FORM' ? `form ${e.className}` :
  (e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? e.textContent)
    .trim().replace(/[0-9]+/, 'N'));
";

/// What everybody sees who may look: nothing of it changes anything.
const READ: [&str; 16] = [
    "About this batch",
    "Check again",
    "Clear",
    "Copy JSON line",
    "Copy command",
    "Download all",
    "Download as zip",
    "Filter and order",
    "Next",
    "Previous",
    "Select job N",
    "Sidecar",
    "Sign out",
    "Table",
    "Trace",
    "form filters",
];

/// What comes with the scope `submit`.
const SUBMIT: [&str; 13] = [
    "Attention pictures",
    "Cancel",
    "Check",
    "Compare with plain SD",
    "Edit all as a child batch",
    "More options",
    "Name",
    "Replay all N",
    "Resume",
    "Run again with other seeds",
    "Submit",
    "Weight",
    "form submit-form",
];

/// What comes with the scope `admin`.
const ADMIN: [&str; 2] = ["Delete", "Drain serve"];

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn nobody_is_offered_what_the_token_may_not_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let [read, submit, admin] = ["read", "submit", "admin"].map(|scope| token(&file, scope));
    let scene = Scene::set(&["--tokens", file.to_str().unwrap()], Some(&admin)).await;
    let mut wanted = BTreeSet::new();
    for (token, more) in [(&read, &READ[..]), (&submit, &SUBMIT[..]), (&admin, &ADMIN[..])] {
        wanted.append(&mut names(more));
        let browser = Browser::start().await.unwrap();
        browser.open(&scene.served.url).await.unwrap();
        browser.see(&css("form.sign-in")).await.unwrap();
        let form = names(&["Sign in", "form card sign-in"]);
        assert_eq!(controls(&browser).await, form);
        sign_in(&browser, token).await;
        let mut seen = BTreeSet::new();
        for view in views(&scene) {
            view.show(&browser, &scene.served).await;
            if view.name == "batch" {
                browser.click(&field("Select job 0")).await.unwrap();
                browser.see(&link("Download as zip")).await.unwrap();
            }
            seen.extend(controls(&browser).await);
        }
        assert_eq!(seen, wanted);
        // Whoever sends it all the same is refused.
        if token == &read {
            let path = format!("/v1/batches/{}", scene.paused);
            let send = "return fetch(arguments[0], {method: 'PATCH', body: '{\"paused\": false}',
                headers: {'Content-Type': 'application/json'}}).then((answer) => answer.status)";
            assert_eq!(browser.run(send, json!([path])).await.unwrap(), 403);
        }
    }
}

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn a_token_that_is_taken_away_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let [submit, other] = ["submit", "read"].map(|scope| token(&file, scope));
    let mut served = Served::start_with(&["--tokens", file.to_str().unwrap()]).await;
    served.token = Some(submit.clone());
    let id = served.submit("", &guided_lines(12, 900)).await;
    let browser = Browser::start().await.unwrap();
    browser.open(&served.page(&format!("/batches/{id}"))).await.unwrap();
    // Somebody who guesses is told so, and stays where they are.
    browser.write(&field("Token"), "excite_guessed").await.unwrap();
    browser.click(&button("Sign in")).await.unwrap();
    browser.see(&text("the token is not known")).await.unwrap();
    sign_in(&browser, &submit).await;
    browser.see(&button("Pause")).await.unwrap();

    let lines = std::fs::read_to_string(&file).unwrap();
    let kept: Vec<&str> = lines.lines().filter(|line| !line.starts_with("submit:")).collect();
    std::fs::write(&file, kept.join("\n")).unwrap();
    browser.see(&text("Your token is no longer valid")).await.unwrap();
    browser.gone(&button("Pause")).await.unwrap();
    browser.screenshot(&picture("token-taken-away")).await.unwrap();
    // With another one it goes on where it was.
    sign_in(&browser, &other).await;
    browser.see(&css(".batch-progress")).await.unwrap();
    assert!(browser.all(&button("Pause")).await.unwrap().is_empty());
    let complaints = browser.complaints().await.unwrap();
    assert!(complaints.iter().all(|line| line.contains("401")), "{complaints:?}");
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Signs in on the page that asks for it.
pub(crate) async fn sign_in(browser: &Browser, token: &str) {
    browser.write(&field("Token"), token).await.unwrap();
    browser.click(&button("Sign in")).await.unwrap();
    browser.gone(&css("form.sign-in")).await.unwrap();
}

async fn controls(browser: &Browser) -> BTreeSet<String> {
    let found = browser.run(CONTROLS, json!([])).await.unwrap();
    serde_json::from_value(found).unwrap()
}

/// A new token with a scope, of somebody called like it.
pub(crate) fn token(file: &Path, scope: &str) -> String {
    let mut command = Command::new(built("excite").unwrap());
    command.args(["token", "new", "--json", "--name", scope, "--scope", scope, "--file"]).arg(file);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said["token"].as_str().unwrap().to_owned()
}
