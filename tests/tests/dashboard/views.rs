//! Every view as it is seen: in light and dark and on a phone, checked by axe-core and drawn into
//! `target/screenshots`.

use excite_tests::browser::{Browser, button, css, field};
use serde_json::{Value, json};

use super::axe::Axe;
use super::picture;
use super::scene::Scene;
use super::served::Served;
use super::tokens::{sign_in, token};

/// A page, and what is there once it is whole.
pub(crate) struct View {
    pub(crate) name: &'static str,
    path: String,
    ready: &'static [&'static str],
}

/// Every address of the dashboard, each with something to see.
pub(crate) fn views(scene: &Scene) -> Vec<View> {
    let view = |name, path: &str, ready| View { name, path: path.into(), ready };
    let batch = |id: &str| format!("/batches/{id}");
    let job = |id: &str, index| format!("/batches/{id}/jobs/{index}");
    vec![
        view(
            "overview",
            "/",
            &["table.batches", ".chart canvas", "[aria-labelledby=checks] p .icon"],
        ),
        view("batches", "/batches", &["table.batches"]),
        view("batch", &batch(&scene.finished), &[".shot:nth-child(4) img"]),
        view("paused", &batch(&scene.paused), &[".batch-progress", ".gallery"]),
        view("job", &job(&scene.finished, 0), &[".heat canvas", ".chart canvas", ".timeline"]),
        view("dead-job", &job(&scene.dead, 0), &[".timeline"]),
        view("workers", "/workers", &[".worker .fact"]),
        view("dead", "/dead", &[".dead-group"]),
        view("submit", "/submit", &[".page form, .page > p:not(.loading)"]),
    ]
}

impl View {
    /// Goes there, and waits until all is there.
    pub(crate) async fn show(&self, browser: &Browser, served: &Served) {
        browser.open(&served.page(&self.path)).await.unwrap();
        for ready in self.ready {
            browser.see(&css(ready)).await.unwrap();
        }
        browser.until("the images", DRAWN).await.unwrap();
    }
}

const DRAWN: &str = "
// Those far below come when one scrolls there.
const near = [...document.images].filter((image) => image.getBoundingClientRect().top < innerHeight);
const waiting = near.filter((image) => !(image.complete && image.naturalWidth > 0));
return waiting.length === 0 ? true : `${waiting.length} are not drawn`;
";

/// A way to look at pages: its name, and what Chromium is told for it.
type Look = (&'static str, fn() -> Vec<(&'static str, Value)>);

const LOOKS: [Look; 3] = [
    ("light", || vec![colours("light")]),
    ("dark", || vec![colours("dark")]),
    ("phone", || {
        let screen = json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true});
        let touch = json!({"enabled": true});
        vec![
            colours("light"),
            ("Emulation.setDeviceMetricsOverride", screen),
            ("Emulation.setTouchEmulationEnabled", touch),
        ]
    }),
];

fn colours(scheme: &str) -> (&'static str, Value) {
    let feature = json!({"name": "prefers-color-scheme", "value": scheme});
    ("Emulation.setEmulatedMedia", json!({ "features": [feature] }))
}

/// Looks at views in one way, and notes what is wrong with them.
struct Examiner {
    browser: Browser,
    axe: Option<Axe>,
    look: &'static str,
    faults: Vec<String>,
}

impl Examiner {
    /// Draws what is seen now, and notes what is wrong with it.
    async fn examine(&mut self, view: &str) {
        let file = picture(&format!("{view}-{}", self.look));
        self.browser.screenshot(&file).await.unwrap();
        let wide = "return document.documentElement.scrollWidth - innerWidth";
        let wide = self.browser.run(wide, json!([])).await.unwrap();
        let mut found = Vec::new();
        if wide.as_f64().unwrap() > 0. {
            found.push(format!("it is {wide} pixels too wide"));
        }
        found.extend(self.browser.complaints().await.unwrap().into_iter().filter(|said| {
            // The question who is signed in.
            !(said.contains("401") && view == "sign-in")
        }));
        if let Some(axe) = &self.axe {
            found.extend(axe.faults(&self.browser).await);
        }
        self.faults.extend(found.iter().map(|fault| format!("{view}, {}: {fault}", self.look)));
    }
}

#[tokio::test]
#[ignore = "long: a server and a browser of its own"]
async fn every_view_can_be_used_by_everybody() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("tokens");
    let admin = token(&file, "admin");
    let scene = Scene::set(&["--tokens", file.to_str().unwrap()], Some(&admin)).await;
    let empty = Served::start().await;
    let mut faults = Vec::new();
    for (look, commands) in LOOKS {
        let browser = Browser::start().await.unwrap();
        for (command, parameters) in commands() {
            browser.cdp(command, parameters).await.unwrap();
        }
        let mut examiner = Examiner { browser, axe: Axe::fetch(), look, faults: Vec::new() };
        View { name: "", path: "/".into(), ready: &[".first-steps", ".chart canvas"] }
            .show(&examiner.browser, &empty)
            .await;
        examiner.examine("first-steps").await;
        examiner.browser.open(&scene.served.url).await.unwrap();
        examiner.browser.see(&css("form.sign-in")).await.unwrap();
        examiner.examine("sign-in").await;
        sign_in(&examiner.browser, &admin).await;
        for view in views(&scene) {
            view.show(&examiner.browser, &scene.served).await;
            match view.name {
                "batch" => examiner.browser.click(&field("Select job 1")).await.unwrap(),
                "submit" => fill_in(&examiner.browser).await,
                _ => {}
            }
            examiner.examine(view.name).await;
            if view.name == "paused" {
                examiner.browser.click(&button("Weight")).await.unwrap();
                examiner.browser.see(&css("dialog")).await.unwrap();
                examiner.examine("dialog").await;
            }
        }
        faults.extend(examiner.faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The form with all that can be in it.
async fn fill_in(browser: &Browser) {
    let prompts = "a cat and a frog\na zorblax beside a bear";
    browser.write(&field("Prompts"), prompts).await.unwrap();
    browser.see(&button("frog")).await.unwrap();
    browser.click(&button("More options")).await.unwrap();
    browser.click(&button("Check")).await.unwrap();
    browser.see(&css("#checked")).await.unwrap();
}
