//! Headless Chromium, driven through chromedriver with the few W3C WebDriver commands that the tests need.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::scene::daemon::ask;
use crate::scene::sandbox::{Sandbox, wait_for};
use crate::scene::servers::free_port;

pub(crate) struct Browser {
    driver: Child,
    session: String,
    shots: PathBuf,
    count: std::cell::Cell<u32>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ask(&self.session, "DELETE", "", &[]);
        let group = rustix::process::Pid::from_child(&self.driver);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// Starts a browser whose pictures go into this folder.
    pub(crate) fn start(sandbox: &Sandbox, shots: &Path) -> Self {
        use std::os::unix::process::CommandExt;
        let _ = std::fs::remove_dir_all(shots);
        std::fs::create_dir_all(shots).unwrap();
        let port = free_port();
        let mut command = sandbox.command("setpriv");
        command.args(["--pdeathsig", "TERM", "--", "chromedriver", &format!("--port={port}")]).process_group(0);
        let driver = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let base = format!("http://127.0.0.1:{port}");
        wait_for("chromedriver", || ask(&format!("{base}/status"), "GET", "", &[]).is_some());
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,900"],
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let begun = ask(&format!("{base}/session"), "POST", &wanted.to_string(), &[]).unwrap();
        let id = begun.json()["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{begun:?}")).to_owned();
        Self { driver, session: format!("{base}/session/{id}"), shots: shots.to_owned(), count: Default::default() }
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let answer = ask(&format!("{}/{path}", self.session), method, &body, &[]).unwrap();
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer.json()["value"].clone()
    }

    pub(crate) fn goto(&self, url: &str) {
        self.command("POST", "url", &json!({ "url": url }));
    }

    pub(crate) fn url(&self) -> String {
        self.command("GET", "url", &Value::Null).as_str().unwrap().to_owned()
    }

    /// Runs a script of the test. The content security policy of the page does not apply to it.
    pub(crate) fn script(&self, text: &str) -> Value {
        self.command("POST", "execute/sync", &json!({ "script": text, "args": [] }))
    }

    fn element(&self, css: &str) -> String {
        let found = self.command("POST", "element", &json!({ "using": "css selector", "value": css }));
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    pub(crate) fn click(&self, css: &str) {
        // One script finds and clicks the element, because the page may replace it at any moment.
        self.element(css);
        self.script(&format!("document.querySelector({}).click()", json!(css)));
    }

    pub(crate) fn type_into(&self, css: &str, text: &str) {
        let element = self.element(css);
        self.command("POST", &format!("element/{element}/clear"), &json!({}));
        self.command("POST", &format!("element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses a key on whatever has the focus.
    pub(crate) fn press(&self, key: &str) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.command("POST", "actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }));
    }

    /// The texts of all matching elements, joined by `|`. Empty if no element matches.
    pub(crate) fn text(&self, css: &str) -> String {
        let css = serde_json::to_string(css).unwrap();
        let script = format!("return [...document.querySelectorAll({css})].map((e) => e.textContent.trim()).join('|')");
        self.script(&script).as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn wait_text(&self, css: &str, text: &str) {
        wait_for(&format!("'{text}' in {css}"), || self.text(css).contains(text));
    }

    /// Keeps a picture of the whole page.
    pub(crate) fn shot(&self, name: &str) {
        self.count.set(self.count.get() + 1);
        let height = self.script("return document.documentElement.scrollHeight").as_u64().unwrap_or(900);
        std::fs::write(self.shots.join(format!("{:02}-{name}.png", self.count.get())), self.picture(height)).unwrap();
    }

    /// A PNG picture of the top `height` pixels of the page.
    pub(crate) fn picture(&self, height: u64) -> Vec<u8> {
        use base64::Engine;
        let clip = json!({ "x": 0, "y": 0, "width": self.script("return innerWidth"), "height": height, "scale": 1 });
        let picture = self.cdp("Page.captureScreenshot", &json!({ "captureBeyondViewport": true, "clip": clip }));
        base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    /// A command of the Chrome DevTools protocol.
    pub(crate) fn cdp(&self, command: &str, parameters: &Value) -> Value {
        self.command("POST", "goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// What the browser complained of: refused scripts and styles, errors in scripts, answers with an error status.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.command("POST", "se/log", &json!({ "type": "browser" }));
        let severe = entries.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}
