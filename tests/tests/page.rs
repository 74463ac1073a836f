//! What does a reader's browser do with the page of a meter? Passes with a line where there is no chromium.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tests::system::{CATCH_UP_TIMEOUT, stage, start_dlms, until, until_logged};

/// A chromium without a window, spoken to by its DevTools protocol over a pipe: messages of JSON that end in a zero byte.
struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    last_id: u64,
}

impl Browser {
    /// `None`: there is none here. `folder` is its profile.
    fn start(folder: &Path) -> Option<Self> {
        if !Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success()) {
            return None;
        }
        let arguments = "--headless --no-sandbox --disable-gpu --window-size=390,844 --remote-debugging-pipe";
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec chromium {arguments} --user-data-dir=\"$0\" 3<&0 4>&1")])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, to, from, last_id: 0 })
    }

    fn call(&mut self, session: Option<&str>, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).unwrap();
            assert_eq!(answer.pop(), Some(0), "the browser ended");
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.last_id {
                return answer["result"].clone();
            }
        }
    }

    /// Opens a page and answers its session.
    fn open(&mut self, url: &str) -> String {
        let target = self.call(None, "Target.createTarget", &json!({"url": url}))["targetId"].clone();
        let attached = self.call(None, "Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        attached["sessionId"].as_str().unwrap().to_owned()
    }

    /// What an expression is on the page.
    fn evaluate(&mut self, session: &str, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        self.call(Some(session), "Runtime.evaluate", &params)["result"]["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Already gone is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the script has made of the page: the day it shows, rows that it added, whether it leads on to a newer day.
const LOOK: &str = "document.readyState === 'complete' && document.getElementById('newer') && ({
    day: document.getElementById('day').textContent, added: document.querySelectorAll('tr.new').length,
    newer: !document.getElementById('newer').hidden, link: document.getElementById('newer').getAttribute('href'),
    live: document.getElementById('live').textContent, curve: document.querySelectorAll('#plot svg').length,
    wide: document.documentElement.scrollWidth - innerWidth })";

/// The meter's days pass in seconds, so that every day shown is over by the clock of the machine. A page may be opened on the last
/// reading of a day, hence more than one.
///
/// Negative controls: let the script follow only while now lies in the day that is shown (`page.js`, the last lines); leave out
/// what shows the link to newer readings (`follow`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_a_meter_that_is_read_late_follows_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut browser) = Browser::start(&folder.path().join("browser")) else {
        return println!("there is no chromium here: no page was looked at");
    };
    let mut stage = stage(folder.path()).await.unwrap();
    let settings = "start_at = \"2025-09-01T00:00:00Z\"\nspeed = 7200.0\nhistory_days = 0.5";
    let fleet = start_dlms(&mut stage, 1, 1, settings).unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 100).await.unwrap();
    let meter = fleet.captured().unwrap().into_keys().next().unwrap().0;
    for _ in 0..5 {
        let session = browser.open(&format!("{}meters/{meter}", stage.page()));
        let mut seen = Value::Null;
        let is_led_on = async || {
            seen = browser.evaluate(&session, LOOK);
            Ok(seen["newer"] == true)
        };
        let led_on = until("a link to a newer day", CATCH_UP_TIMEOUT, is_led_on).await;
        assert!(led_on.is_ok(), "{seen}");
        assert!(seen["day"].as_str().unwrap().starts_with("2025-"), "{seen}");
        assert!(!seen["link"].as_str().unwrap().contains("day="), "to the newest, whichever that is by then: {seen}");
        assert_eq!((&seen["live"], &seen["curve"]), (&"live".into(), &1.into()), "{seen}");
        assert!(seen["wide"].as_i64().unwrap() <= 0, "nothing is wider than a phone: {seen}");
        if seen["added"].as_u64() > Some(0) {
            return;
        }
    }
    panic!("no reading was added to any page");
}
