//! Push rules, and the unread counts that follow from them.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use super::threads;
use crate::rig::{Dice, enc, server::Server, user::User};

/// Ids of the rules of a kind, as a user sees them.
async fn ids(user: &User, kind: &str) -> Vec<String> {
    let (status, body) = user.get("/pushrules/").await;
    assert_eq!(status, 200, "{body}");
    let rules = body["global"][kind].as_array().unwrap();
    let ids = rules.iter().map(|rule| rule["rule_id"].as_str().unwrap());
    ids.map(ToOwned::to_owned).collect()
}

/// The rules that a sync brings.
fn told(body: &Value) -> Option<&Value> {
    let events = body["account_data"]["events"].as_array()?;
    let event = events.iter().find(|event| event["type"] == "m.push_rules");
    event.map(|event| &event["content"])
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
async fn rules_are_made_moved_changed_and_deleted_and_every_client_hears_of_it() {
    let server = Server::start().await;
    let mut alice = server.user("alice").await;
    let body = alice.sync(0).await;
    let first = &told(&body).unwrap()["global"]["override"][0];
    assert_eq!(first["rule_id"], ".m.rule.master");

    let content = |id: &str| format!("/pushrules/global/content/{id}");
    let rule = json!({ "pattern": "cake", "actions": ["notify", { "set_tweak": "highlight" }] });
    for place in ["a", "b", "c?after=a", "d?before=a", "a?after=c"] {
        let (status, body) = alice.put(&content(place), rule.clone()).await;
        assert_eq!(status, 200, "{place}: {body}");
    }
    assert_eq!(ids(&alice, "content").await, ["b", "d", "c", "a"]);
    let body = alice.sync(10_000).await;
    assert_eq!(told(&body).unwrap()["global"]["content"][3]["rule_id"], "a");
    let own = json!({ "conditions": [], "actions": ["dont_notify"] });
    let path = "/pushrules/global/override/mine";
    assert_eq!(alice.put(path, own.clone()).await.0, 200);
    assert_eq!(
        ids(&alice, "override").await[..2],
        [".m.rule.master", "mine"]
    );

    let part = |part: &str| format!("/pushrules/global/content/a/{part}");
    assert_eq!(
        alice
            .put(&part("enabled"), json!({ "enabled": false }))
            .await
            .0,
        200
    );
    let quiet = json!({ "actions": ["dont_notify"] });
    assert_eq!(alice.put(&part("actions"), quiet.clone()).await.0, 200);
    assert_eq!(
        alice.get(&part("enabled")).await,
        (200, json!({ "enabled": false }))
    );
    assert_eq!(alice.get(&part("actions")).await, (200, quiet.clone()));
    // A rule that is written again stays as it was, enabled or not, and where it was.
    assert_eq!(alice.put(&content("a"), rule.clone()).await.0, 200);
    let (_, body) = alice.get(&content("a")).await;
    assert_eq!(
        (&body["enabled"], &body["default"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(ids(&alice, "content").await, ["b", "d", "c", "a"]);
    let given = "/pushrules/global/underride/.m.rule.message/actions";
    assert_eq!(alice.put(given, quiet.clone()).await.0, 200);
    let data = format!("/user/{}/account_data/m.push_rules", enc(&alice.id));
    let (_, body) = alice.get(&data).await;
    let (_, all) = alice.get("/pushrules/").await;
    assert_eq!(body, all);
    let rules = all["global"]["underride"].as_array().unwrap();
    let message = rules
        .iter()
        .find(|rule| rule["rule_id"] == ".m.rule.message");
    assert_eq!(message.unwrap()["actions"], json!(["dont_notify"]));

    let refused = [
        (Method::GET, "content/nope", None, (404, "M_NOT_FOUND")),
        (
            Method::GET,
            "postcontent/.io.element.x",
            None,
            (404, "M_NOT_FOUND"),
        ),
        (Method::DELETE, "content/nope", None, (404, "M_NOT_FOUND")),
        (
            Method::DELETE,
            "override/.m.rule.master",
            None,
            (400, "M_INVALID_PARAM"),
        ),
        (
            Method::PUT,
            "content/nope/enabled",
            Some(json!({ "enabled": true })),
            (404, "M_NOT_FOUND"),
        ),
        (
            Method::PUT,
            "content/nope/actions",
            Some(quiet.clone()),
            (404, "M_NOT_FOUND"),
        ),
        (
            Method::PUT,
            "content/.mine",
            Some(rule.clone()),
            (400, "M_INVALID_PARAM"),
        ),
        (
            Method::PUT,
            "content/a%2Fb",
            Some(rule.clone()),
            (400, "M_INVALID_PARAM"),
        ),
        (
            Method::PUT,
            "content/a%5Cb",
            Some(rule.clone()),
            (400, "M_INVALID_PARAM"),
        ),
        (
            Method::PUT,
            "content/x?before=nope",
            Some(rule.clone()),
            (404, "M_NOT_FOUND"),
        ),
        (
            Method::PUT,
            "override/x?after=.m.rule.master",
            Some(own),
            (400, "M_INVALID_PARAM"),
        ),
        (
            Method::PUT,
            "content/x?after=a&before=b",
            Some(rule.clone()),
            (400, "M_INVALID_PARAM"),
        ),
        (
            Method::PUT,
            "content/x",
            Some(quiet.clone()),
            (400, "M_BAD_JSON"),
        ),
        (Method::PUT, "room/x", Some(quiet), (400, "M_INVALID_PARAM")),
    ];
    for (method, path, body, (status, code)) in refused {
        let (got, body) = alice
            .call(method, &format!("/pushrules/global/{path}"), body)
            .await;
        assert_eq!(
            (got, &body["errcode"]),
            (status, &json!(code)),
            "{path}: {body}"
        );
    }
    assert_eq!(alice.call(Method::DELETE, &content("a"), None).await.0, 200);
    assert_eq!(ids(&alice, "content").await, ["b", "d", "c"]);
}

/// What a user has set, as the model knows it.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
struct Settings {
    is_muted: bool,
    mentions_only: bool,
    keyword: bool,
    no_messages: bool,
    quiet: Option<usize>,
    ignored: Option<usize>,
}

/// An event in the model.
#[derive(Debug)]
struct Said {
    id: String,
    thread: Option<String>,
    sender: usize,
    is_redacted: bool,
    /// Relates to another, so that no thread may begin there.
    is_related: bool,
    /// By user: counts as notification, as highlight.
    counts: Vec<(i64, i64)>,
}

/// What is said, before it is.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
struct Draft {
    is_notice: bool,
    is_edit: bool,
    is_reaction: bool,
    has_keyword: bool,
    mentions: Option<usize>,
    mentions_room: bool,
    thread: Option<String>,
}

/// A room, and what unread counts there have to be: each event is looked at for each user when it
/// comes, and counted one by one.
struct Model {
    server: Server,
    users: Vec<User>,
    room: String,
    dice: Dice,
    settings: Vec<Settings>,
    /// Threads by user, where there are subscriptions.
    subscribed: Option<Vec<BTreeSet<String>>>,
    said: Vec<Said>,
    /// By user and thread (empty: outside of threads; `*`: everything): how many events are read.
    read: Vec<BTreeMap<String, usize>>,
    txn: usize,
}

const ALICE: usize = 0;

impl Model {
    /// `threads`: with subscriptions to threads.
    async fn new(seed: u64, threads: bool) -> Self {
        let server = if threads {
            Server::with(threads::CONFIG, None).await
        } else {
            Server::start().await
        };
        let mut users = Vec::new();
        for name in ["alice", "bob", "carol", "dave"] {
            users.push(server.user(name).await);
        }
        let room = users[ALICE]
            .create_room(json!({ "preset": "public_chat" }))
            .await;
        for user in &users[1..] {
            user.join(&room).await;
        }
        Self {
            server,
            room,
            dice: Dice(seed),
            settings: users.iter().map(|_| Settings::default()).collect(),
            subscribed: threads.then(|| users.iter().map(|_| BTreeSet::new()).collect()),
            said: Vec::new(),
            read: users.iter().map(|_| BTreeMap::new()).collect(),
            users,
            txn: 0,
        }
    }

    /// What an event is for a user by the user's settings: the rules in short.
    fn effect(&self, user: usize, sender: usize, draft: &Draft) -> (i64, i64) {
        let thread = draft.thread.as_deref();
        let settings = &self.settings[user];
        let is_silent = user == sender || settings.ignored == Some(sender) || settings.is_muted;
        if is_silent || draft.is_notice {
            return (0, 0);
        }
        if draft.mentions == Some(user) || (draft.mentions_room && sender == ALICE) {
            return (1, 1);
        }
        if draft.is_reaction || draft.is_edit {
            return (0, 0);
        }
        if draft.has_keyword && settings.keyword {
            return (1, 1);
        }
        if let (Some(thread), Some(subscribed)) = (thread, &self.subscribed) {
            return (i64::from(subscribed[user].contains(thread)), 0);
        }
        let is_quiet = settings.mentions_only || settings.quiet == Some(sender);
        (i64::from(!is_quiet && !settings.no_messages), 0)
    }

    fn is_read(&self, user: usize, at: usize) -> bool {
        let thread = self.said[at].thread.as_deref().unwrap_or_default();
        let read = |key: &str| self.read[user].get(key).copied().unwrap_or_default();
        at < read(thread).max(read("*"))
    }

    fn has_read(&mut self, user: usize, thread: &str, upto: usize) {
        let read = self.read[user].entry(thread.to_owned()).or_default();
        *read = upto.max(*read);
    }

    #[expect(clippy::too_many_lines, reason = "one kind of event after the other")]
    async fn say(&mut self) {
        let sender = self.dice.roll(self.users.len());
        let mut draft = Draft {
            is_notice: self.dice.one_in(8),
            has_keyword: self.dice.one_in(4),
            mentions_room: self.dice.one_in(10),
            ..Draft::default()
        };
        if self.dice.one_in(4) {
            draft.mentions = Some(self.dice.roll(self.users.len()));
        }
        let mut content = json!({ "msgtype": if draft.is_notice { "m.notice" } else { "m.text" } });
        content["body"] = json!(if draft.has_keyword {
            "a Cake!"
        } else {
            "a cakewalk"
        });
        if let Some(user) = draft.mentions {
            content["m.mentions"]["user_ids"] = json!([self.users[user].id]);
        }
        if draft.mentions_room {
            content["m.mentions"]["room"] = json!(true);
        }
        let mut thread = None;
        let mut kind = "m.room.message";
        if !self.said.is_empty() {
            let target = &self.said[self.dice.roll(self.said.len())];
            let (id, inside) = (target.id.clone(), target.thread.clone());
            let may_begin = inside.is_some() || !target.is_related;
            let relation = match self.dice.roll(8) {
                0..=2 if may_begin => {
                    let root = inside.unwrap_or(id);
                    thread = Some(root.clone());
                    Some(("m.thread", root))
                }
                3 => {
                    thread = inside;
                    draft.is_edit = true;
                    Some(("m.replace", id))
                }
                4 => {
                    thread = inside;
                    draft.is_reaction = true;
                    draft.is_notice = false;
                    kind = "m.reaction";
                    content = json!({});
                    draft.mentions = None;
                    draft.mentions_room = false;
                    Some(("m.annotation", id))
                }
                5 => {
                    thread = inside;
                    Some(("m.reference", id))
                }
                _ => None,
            };
            if let Some((rel_type, id)) = relation {
                content["m.relates_to"] = json!({ "rel_type": rel_type, "event_id": id });
            }
        }
        self.txn += 1;
        let path = format!("/rooms/{}/send/{kind}/n{}", enc(&self.room), self.txn);
        let (status, body) = self.users[sender].put(&path, content.clone()).await;
        assert_eq!(status, 200, "{body}");
        let everybody = draft.mentions_room && sender == ALICE && !draft.is_notice;
        let counts_for_all = everybody || !(draft.is_notice || draft.is_reaction || draft.is_edit);
        if counts_for_all {
            let upto = self.said.len() + 1;
            self.has_read(sender, &thread.clone().unwrap_or_default(), upto);
        }
        draft.thread.clone_from(&thread);
        let users = 0..self.users.len();
        let counts = users
            .map(|user| self.effect(user, sender, &draft))
            .collect();
        self.said.push(Said {
            id: body["event_id"].as_str().unwrap().to_owned(),
            thread,
            sender,
            is_redacted: false,
            is_related: !content["m.relates_to"].is_null(),
            counts,
        });
    }

    async fn redact(&mut self) {
        if self.said.is_empty() {
            return;
        }
        let at = self.dice.roll(self.said.len());
        self.txn += 1;
        let id = enc(&self.said[at].id);
        let path = format!("/rooms/{}/redact/{id}/n{}", enc(&self.room), self.txn);
        let by = if self.dice.one_in(2) {
            ALICE
        } else {
            self.said[at].sender
        };
        let (status, body) = self.users[by].put(&path, json!({})).await;
        assert_eq!(status, 200, "{body}");
        self.said[at].is_redacted = true;
    }

    async fn acknowledge(&mut self) {
        if self.said.is_empty() {
            return;
        }
        let user = self.dice.roll(self.users.len());
        let at = self.said.len() - 1 - self.dice.roll(self.said.len().min(8));
        let kind = ["m.read", "m.read.private"][self.dice.roll(2)];
        let thread = match self.dice.roll(3) {
            0 => "*".to_owned(),
            1 => String::new(),
            _ => self.said[at].thread.clone().unwrap_or_default(),
        };
        let body = match &*thread {
            "*" => json!({}),
            "" => json!({ "thread_id": "main" }),
            root => json!({ "thread_id": root }),
        };
        let id = enc(&self.said[at].id);
        let path = format!("/rooms/{}/receipt/{kind}/{id}", enc(&self.room));
        let (status, body) = self.users[user].post(&path, body).await;
        assert_eq!(status, 200, "{body}");
        self.has_read(user, &thread, at + 1);
    }

    /// Makes or deletes a rule.
    async fn rule(&self, user: usize, rule: &str, body: Option<Value>) {
        let path = format!("/pushrules/global/{rule}");
        let method = if body.is_some() {
            Method::PUT
        } else {
            Method::DELETE
        };
        let (status, body) = self.users[user].call(method, &path, body).await;
        assert_eq!(status, 200, "{rule}: {body}");
    }

    async fn change_mind(&mut self) {
        let user = self.dice.roll(self.users.len());
        let other = (user + 1 + self.dice.roll(self.users.len() - 1)) % self.users.len();
        let room = enc(&self.room);
        match self.dice.roll(6) {
            0 => {
                let on = !self.settings[user].is_muted;
                let here = json!({ "kind": "event_match", "key": "room_id", "pattern": self.room });
                let body = json!({ "conditions": [here], "actions": ["dont_notify"] });
                self.rule(user, &format!("override/{room}"), on.then_some(body))
                    .await;
                self.settings[user].is_muted = on;
            }
            1 => {
                let on = !self.settings[user].mentions_only;
                let body = on.then(|| json!({ "actions": [] }));
                self.rule(user, &format!("room/{room}"), body).await;
                self.settings[user].mentions_only = on;
            }
            2 => {
                let on = !self.settings[user].keyword;
                let actions = json!(["notify", { "set_tweak": "highlight" }]);
                let body = on.then(|| json!({ "pattern": "cake", "actions": actions }));
                self.rule(user, "content/cake", body).await;
                self.settings[user].keyword = on;
            }
            3 => {
                let on = !self.settings[user].no_messages;
                let body = json!({ "enabled": !on });
                self.rule(user, "underride/.m.rule.message/enabled", Some(body))
                    .await;
                self.settings[user].no_messages = on;
            }
            4 => {
                if let Some(old) = self.settings[user].quiet.take() {
                    let rule = format!("sender/{}", enc(&self.users[old].id));
                    self.rule(user, &rule, None).await;
                } else {
                    let rule = format!("sender/{}", enc(&self.users[other].id));
                    self.rule(user, &rule, Some(json!({ "actions": [] }))).await;
                    self.settings[user].quiet = Some(other);
                }
            }
            _ => {
                let ignored = &mut self.settings[user].ignored;
                *ignored = ignored.is_none().then_some(other);
                let mut list = json!({ "ignored_users": {} });
                if ignored.is_some() {
                    list["ignored_users"][&self.users[other].id] = json!({});
                }
                let id = enc(&self.users[user].id);
                let path = format!("/user/{id}/account_data/m.ignored_user_list");
                let (status, body) = self.users[user].put(&path, list).await;
                assert_eq!(status, 200, "{body}");
            }
        }
    }

    /// Begins or ends a subscription to a thread, or to what may become one.
    async fn subscribe(&mut self) {
        let user = self.dice.roll(self.users.len());
        let Some(subscribed) = self.subscribed.as_mut().filter(|_| !self.said.is_empty()) else {
            return;
        };
        let said = &self.said[self.dice.roll(self.said.len())];
        let root = said.thread.as_ref().unwrap_or(&said.id);
        let method = if subscribed[user].remove(root) {
            Method::DELETE
        } else {
            subscribed[user].insert(root.clone());
            Method::PUT
        };
        threads::subscribe(&self.users[user], method, (&self.room, root), json!({})).await;
    }

    async fn come_again(&mut self) {
        let user = 1 + self.dice.roll(self.users.len() - 1);
        let path = format!("/rooms/{}/leave", enc(&self.room));
        assert_eq!(self.users[user].post(&path, json!({})).await.0, 200);
        self.users[user].join(&self.room).await;
        self.has_read(user, "*", self.said.len());
    }

    /// What a user is told has to be what the model counts.
    async fn check(&self, user: usize, what: &str) {
        let mut wanted: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        wanted.insert(String::new(), (0, 0));
        for (at, said) in self.said.iter().enumerate() {
            let (notify, high) = said.counts[user];
            if notify == 0 || said.is_redacted || self.is_read(user, at) {
                continue;
            }
            let key = said.thread.clone().unwrap_or_default();
            let count = wanted.entry(key).or_default();
            *count = (count.0 + notify, count.1 + high);
        }
        let pair = |counts: &Value| {
            let number = |key: &str| counts[key].as_i64().unwrap_or(-1);
            (number("notification_count"), number("highlight_count"))
        };
        let filter = r#"{"room":{"timeline":{"limit":1,"unread_thread_notifications":true}}}"#;
        let (_, body) = self.users[user]
            .get(&format!("/sync?filter={}", enc(filter)))
            .await;
        let part = &body["rooms"]["join"][&self.room];
        let mut got = BTreeMap::from([(String::new(), pair(&part["unread_notifications"]))]);
        for (root, counts) in part["unread_thread_notifications"]
            .as_object()
            .into_iter()
            .flatten()
        {
            got.insert(root.clone(), pair(counts));
        }
        let settings = &self.settings[user];
        assert_eq!(got, wanted, "user {user} after {what}, {settings:?}");
        let (_, body) = self.users[user].get("/sync").await;
        let part = &body["rooms"]["join"][&self.room];
        let sum = wanted
            .values()
            .fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        assert_eq!(
            pair(&part["unread_notifications"]),
            sum,
            "user {user}, in sum, after {what}"
        );
        assert!(part.get("unread_thread_notifications").is_none());
    }

    async fn check_all(&self, what: &str) {
        for user in 0..self.users.len() {
            self.check(user, what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_counts_are_those_of_a_simple_model_whatever_happens() {
    run(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_counts_of_threads_follow_subscriptions() {
    run(true).await;
}

async fn run(threads: bool) {
    const STEPS: usize = 160;
    let given = std::env::var("AMTSBOTE_TEST_SEED").ok();
    let seed = given.map_or(20_261_128, |seed| seed.parse().unwrap());
    let mut model = Model::new(seed, threads).await;
    for step in 0..STEPS {
        let what = match model.dice.roll(if threads { 25 } else { 20 }) {
            0..=9 => {
                model.say().await;
                "a message"
            }
            10..=11 => {
                model.redact().await;
                "a redaction"
            }
            12..=15 => {
                model.acknowledge().await;
                "a receipt"
            }
            16..=18 => {
                model.change_mind().await;
                "a change of rules"
            }
            19 => {
                model.come_again().await;
                "leaving and joining"
            }
            _ => {
                model.subscribe().await;
                "a subscription"
            }
        };
        let what = format!("{what} (seed {seed}, step {step})");
        let user = model.dice.roll(model.users.len());
        model.check(user, &what).await;
        if step == STEPS / 2 {
            model.server.kill();
            model.server.restart().await;
        }
        if step % 20 == 19 {
            model.check_all(&what).await;
        }
    }
}
