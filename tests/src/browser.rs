//! A browser of our own: headless Chromium, driven over WebDriver as a person would.
//!
//! Things on a page are named as people see them ([`Find`]). What is done waits until it can be done,
//! for a minute at most. Not what a page should show: that is the tests'.

mod find;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use reqwest::Method;
use serde_json::{Value, json};

pub use find::{Find, button, css, field, link, text};

use crate::poll::eventually;
use crate::process::Recipe;
use crate::server::Server;
use crate::{Folder, Port};

const START_LIMIT: Duration = Duration::from_secs(60);
/// No page of ours takes longer for anything, not even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Nothing that talks to others, nothing that a machine without a screen lacks. With a pipe instead of
/// a port, Chromium ends when its driver does, however that ends.
const FLAGS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--lang=en",
    "--window-size=1280,1000",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// The key, for [`Browser::press`].
pub const TAB: &str = "\u{E004}";
/// The key, for [`Browser::press`].
pub const ENTER: &str = "\u{E007}";
/// The key, for [`Browser::press`].
pub const LEFT: &str = "\u{E012}";
/// The key, for [`Browser::press`].
pub const RIGHT: &str = "\u{E014}";

/// Where WebDriver keeps the name of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with a profile of its own; it ends with the test.
#[derive(Debug)]
pub struct Browser {
    // Before the folder, for it must not write in it when that goes.
    _server: Server,
    client: reqwest::Client,
    /// Where it is told what to do: `http://127.0.0.1:17001/session/ID`.
    session: String,
    downloads: PathBuf,
    _port: Port,
    _folder: Folder,
}

impl Browser {
    /// Starts it, with an empty page.
    pub async fn start() -> Result<Self> {
        crate::choose_cryptography();
        let (folder, port) = (Folder::temporary("browser")?, Port::free()?);
        let server = Server::new(recipe(&port, &folder));
        let client = reqwest::Client::builder().timeout(ANSWER_LIMIT).no_proxy().build();
        let client = client.context("the HTTP client")?;
        let driver = format!("http://127.0.0.1:{}", port.number());
        let status = async || {
            client.get(format!("{driver}/status")).send().await?.error_for_status()?;
            Ok(())
        };
        let up = server.start(START_LIMIT, status).await;
        up.context("chromium and chromedriver are needed: `cargo xtask test` installs them")?;
        let downloads = folder.sub("downloads")?;
        let profile = format!("--user-data-dir={}", folder.sub("profile")?.display());
        let flags: Vec<&str> = FLAGS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {
                "args": flags,
                "prefs": {"download.default_directory": downloads},
            },
        }}});
        let mut browser = Self {
            _server: server,
            client,
            session: driver,
            downloads,
            _port: port,
            _folder: folder,
        };
        let made = browser.post("/session", wanted).await?;
        let id = made["sessionId"].as_str().context("a session without an id")?;
        browser.session = format!("{}/session/{id}", browser.session);
        Ok(browser)
    }

    /// Goes to an address, as one that was typed.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("/url", json!({ "url": url })).await?;
        Ok(())
    }

    /// Waits until it can be seen, and gives its text.
    pub async fn see(&self, what: &Find) -> Result<String> {
        // A drawing has no text, and is seen all the same.
        let read = "return arguments[0].innerText?.trim()";
        let text = self.on(what, async |element| self.run(read, json!([element])).await).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until nothing of the kind can be seen.
    pub async fn gone(&self, what: &Find) -> Result<()> {
        let end = format!("the end of {what}");
        let gone = eventually(LIMIT, &end, async || match self.all(what).await?.len() {
            0 => Ok(()),
            there => bail!("{there} of them"),
        });
        gone.await
    }

    /// What can be seen of the kind now.
    pub async fn all(&self, what: &Find) -> Result<Vec<Value>> {
        match self.run(find::SCRIPT, what.arguments()).await? {
            Value::Array(found) => Ok(found),
            other => bail!("no list of elements: {other}"),
        }
    }

    /// The texts of what can be seen of the kind now.
    pub async fn texts(&self, what: &Find) -> Result<Vec<String>> {
        let read = "return arguments[0].map((element) => element.innerText.trim())";
        let texts = self.run(read, json!([self.all(what).await?])).await?;
        serde_json::from_value(texts).context("no list of texts")
    }

    /// Clicks on the first of the kind.
    pub async fn click(&self, what: &Find) -> Result<()> {
        self.on(what, async |element| {
            let id = element[ELEMENT].as_str().context("no element")?;
            self.post(&format!("/element/{id}/click"), json!({})).await?;
            Ok(())
        })
        .await
    }

    /// Puts a text into a field instead of what is there, as if pasted.
    pub async fn write(&self, what: &Find, text: &str) -> Result<()> {
        self.click(what).await?;
        self.run("document.activeElement.select()", json!([])).await?;
        self.cdp("Input.insertText", json!({ "text": text })).await?;
        Ok(())
    }

    /// Chooses an option of a list by its text.
    pub async fn choose(&self, what: &Find, option: &str) -> Result<()> {
        let script =
            "return [...arguments[0].options].find((o) => o.text === arguments[1]) ?? null";
        self.on(what, async |element| {
            let found = self.run(script, json!([element, option])).await?;
            let id = found[ELEMENT].as_str().with_context(|| format!("no option {option}"))?;
            self.post(&format!("/element/{id}/click"), json!({})).await?;
            Ok(())
        })
        .await
    }

    /// Presses keys one after the other: whatever has the focus gets them.
    pub async fn press(&self, keys: &str) -> Result<()> {
        let key = |kind: &str, key: char| json!({"type": kind, "value": key.to_string()});
        let strokes: Vec<Value> =
            keys.chars().flat_map(|each| [key("keyDown", each), key("keyUp", each)]).collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        self.post("/actions", json!({ "actions": [keyboard] })).await?;
        Ok(())
    }

    /// Runs a script in the page, and gives what it returns; `arguments` is an array.
    pub async fn run(&self, script: &str, arguments: Value) -> Result<Value> {
        self.post("/execute/sync", json!({"script": script, "args": arguments})).await
    }

    /// Waits until a script returns `true`; what else it returns is what there is instead.
    pub async fn until(&self, what: &str, script: &str) -> Result<()> {
        let so = eventually(LIMIT, what, async || match self.run(script, json!([])).await? {
            Value::Bool(true) => Ok(()),
            instead => bail!("{instead}"),
        });
        so.await
    }

    /// A command of Chromium's own protocol, for what WebDriver has no word for.
    pub async fn cdp(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// Cuts the browser off from every server, or connects it again.
    pub async fn offline(&self, offline: bool) -> Result<()> {
        let conditions = json!({
            "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1,
        });
        self.cdp("Network.emulateNetworkConditions", conditions).await?;
        Ok(())
    }

    /// The errors and warnings of the console since the last call, violations of the content security
    /// policy among them.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.post("/se/log", json!({"type": "browser"})).await?;
        let entries = entries.as_array().context("no list of messages")?;
        let is_bad = |entry: &&Value| {
            matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"))
                || entry["source"] == "security"
        };
        let said = |entry: &Value| format!("{}: {}", entry["source"], entry["message"]);
        Ok(entries.iter().filter(is_bad).map(said).collect())
    }

    /// The tabs, oldest first.
    pub async fn tabs(&self) -> Result<Vec<String>> {
        let tabs = self.ask(Method::GET, "/window/handles", json!({})).await?;
        serde_json::from_value(tabs).context("no list of tabs")
    }

    /// Opens a tab and goes to it.
    pub async fn new_tab(&self) -> Result<()> {
        let made = self.post("/window/new", json!({"type": "tab"})).await?;
        self.switch_to(made["handle"].as_str().context("a tab without a name")?).await
    }

    /// Goes to a tab.
    pub async fn switch_to(&self, tab: &str) -> Result<()> {
        self.post("/window", json!({ "handle": tab })).await?;
        Ok(())
    }

    /// Where downloads go.
    pub fn downloads(&self) -> &Path {
        &self.downloads
    }

    /// Draws the whole page, also what one would have to scroll to, into a file; of a page behind a
    /// dialog only what one sees.
    pub async fn screenshot(&self, path: &Path) -> Result<()> {
        // What stays at the bottom of the window is then where the page ends.
        let end =
            "scrollTo(0, document.body.scrollHeight); return !document.querySelector(':modal')";
        let whole = self.run(end, json!([])).await?;
        let metrics = self.cdp("Page.getLayoutMetrics", json!({})).await?;
        let size = &metrics["cssContentSize"];
        let clip = json!({
            "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1,
        });
        let wanted = match whole {
            Value::Bool(true) => json!({"captureBeyondViewport": true, "clip": clip}),
            _ => json!({}),
        };
        let drawn = self.cdp("Page.captureScreenshot", wanted).await?;
        let drawn = drawn["data"].as_str().context("no picture")?;
        let drawn = base64::engine::general_purpose::STANDARD.decode(drawn)?;
        std::fs::write(path, drawn).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Does something with the first of the kind, as soon as it can be done.
    async fn on<T>(&self, what: &Find, act: impl AsyncFn(&Value) -> Result<T>) -> Result<T> {
        let name = what.to_string();
        let done = eventually(LIMIT, &name, async || {
            let found = self.all(what).await?;
            // A page may draw it anew at any moment: then it is looked for again.
            act(found.first().context("not to be seen")?).await
        });
        done.await
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value> {
        let get = method == Method::GET;
        let mut request = self.client.request(method, format!("{}{path}", self.session));
        if !get {
            request = request.json(&body);
        }
        let answer = request.send().await.with_context(|| format!("chromedriver: {path}"))?;
        let good = answer.status().is_success();
        let mut answer: Value = answer.json().await.context("chromedriver's answer")?;
        let value = answer["value"].take();
        if !good {
            let message = value["message"].as_str().unwrap_or_default();
            // What follows are addresses in the driver.
            bail!("{path}: {}: {}", value["error"], message.lines().next().unwrap_or_default());
        }
        Ok(value)
    }
}

fn recipe(port: &Port, folder: &Folder) -> Recipe {
    let recipe = if nix::unistd::Uid::effective().is_root() {
        // Root's Chromium puts itself before all other programs, those it looks at among them.
        let cannot = ["--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", "chromedriver"];
        Recipe::new("chromedriver", "setpriv").args(cannot)
    } else {
        Recipe::new("chromedriver", "chromedriver")
    };
    // Whatever it writes beside the profile goes with it.
    recipe.arg(format!("--port={}", port.number())).env("HOME", folder.path())
}
