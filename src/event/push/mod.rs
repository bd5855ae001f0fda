//! Push rules: which events a user is notified of, and how (specification, "Push notifications").
//! Pure: rules are compiled once, and evaluated against events without I/O.

pub mod class;
pub mod defaults;
pub mod subject;

mod pattern;

use std::ops::RangeBounds;

use ruma::push::{
    Action, ConditionalPushRule, PatternedPushRule, PushCondition, RoomMemberCountIs, Ruleset,
    ScalarJsonValue,
};
use serde_json::Value;

use self::{
    pattern::{Pattern, has_words},
    subject::{Place, Reader, Subject},
};

/// What a rule does, as counts see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Effect {
    /// Counts as a notification.
    pub notify: bool,
    /// Counts as a highlight.
    pub highlight: bool,
}

impl Effect {
    /// Of a list of actions. A highlight that does not notify is none.
    pub fn of(actions: &[Action]) -> Self {
        let notify = actions.iter().any(Action::should_notify);
        Self {
            notify,
            highlight: notify && actions.iter().any(Action::is_highlight),
        }
    }
}

/// The rules of a user, compiled: those that are enabled, in the order in which they are asked.
#[derive(Clone, Debug)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    conditions: Vec<Condition>,
    actions: Vec<Action>,
    effect: Effect,
}

/// A dot-separated path, split where a dot is not escaped.
type Path = Vec<String>;

#[derive(Clone, Debug)]
enum Condition {
    Match(Path, Pattern),
    /// The body has words.
    Body(Pattern),
    Is(Path, Value),
    Contains(Path, Value),
    DisplayName,
    Members(RoomMemberCountIs),
    Permission(String),
    Room(String),
    Sender(String),
    /// The event is in a thread that the user is subscribed to, or not (MSC4306).
    Thread(bool),
    /// The event does not say whom it mentions.
    Unsaid,
    /// A kind that we do not know, or that can match nothing.
    Never,
}

impl Rules {
    /// Compiles the enabled rules: override, content, those after it (MSC4306), room, sender, underride.
    pub fn new(set: &Ruleset) -> Self {
        let mut rules = Vec::new();
        rules.extend(set.override_.iter().filter_map(conditional));
        rules.extend(set.content.iter().filter_map(patterned));
        rules.extend(set.postcontent.iter().filter_map(conditional));
        let rooms = set.room.iter().filter(|rule| rule.enabled);
        rules.extend(rooms.map(|rule| {
            let condition = Condition::Room(rule.rule_id.to_string());
            Rule::new(vec![condition], &rule.actions)
        }));
        let senders = set.sender.iter().filter(|rule| rule.enabled);
        rules.extend(senders.map(|rule| {
            let condition = Condition::Sender(rule.rule_id.to_string());
            Rule::new(vec![condition], &rule.actions)
        }));
        rules.extend(set.underride.iter().filter_map(conditional));
        Self(rules)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether they need to know what their user is called in the room.
    pub fn ask_for_name(&self) -> bool {
        let mut conditions = self.0.iter().flat_map(|rule| &rule.conditions);
        conditions.any(|condition| matches!(condition, Condition::DisplayName))
    }

    /// What the first rule that applies does; none for one's own events.
    pub fn actions(&self, event: &Subject<'_>, place: &Place, reader: Reader<'_>) -> &[Action] {
        self.first(event, place, reader)
            .map_or(&[], |rule| &rule.actions)
    }

    /// The same as counts see it.
    pub fn effect(&self, event: &Subject<'_>, place: &Place, reader: Reader<'_>) -> Effect {
        self.first(event, place, reader)
            .map_or(Effect::default(), |rule| rule.effect)
    }

    fn first(&self, event: &Subject<'_>, place: &Place, reader: Reader<'_>) -> Option<&Rule> {
        if event.pdu.sender == reader.user_id {
            return None;
        }
        self.0.iter().find(|rule| {
            let mut conditions = rule.conditions.iter();
            conditions.all(|condition| condition.holds(event, place, reader))
        })
    }
}

impl Rule {
    fn new(conditions: Vec<Condition>, actions: &[Action]) -> Self {
        Self {
            conditions,
            effect: Effect::of(actions),
            actions: actions.to_vec(),
        }
    }
}

fn conditional(rule: &ConditionalPushRule) -> Option<Rule> {
    let conditions = rule.conditions.iter().map(Condition::new);
    let conditions = unsaid(&rule.rule_id).into_iter().chain(conditions);
    rule.enabled
        .then(|| Rule::new(conditions.collect(), &rule.actions))
}

fn patterned(rule: &PatternedPushRule) -> Option<Rule> {
    let body = || Condition::Body(Pattern::new(&rule.pattern, true));
    let conditions = || unsaid(&rule.rule_id).into_iter().chain([body()]).collect();
    rule.enabled.then(|| Rule::new(conditions(), &rule.actions))
}

/// Rules that look for names do so where an event does not say whom it mentions (specification v1.7).
fn unsaid(rule_id: &str) -> Option<Condition> {
    defaults::looks_for_names(rule_id).then_some(Condition::Unsaid)
}

impl Condition {
    fn new(condition: &PushCondition) -> Self {
        #[expect(deprecated, reason = "users may still have such rules")]
        match condition {
            PushCondition::EventMatch(data) if data.key == "content.body" => {
                Self::Body(Pattern::new(&data.pattern, true))
            }
            PushCondition::EventMatch(data) => {
                Self::Match(path(&data.key), Pattern::new(&data.pattern, false))
            }
            PushCondition::EventPropertyIs(data) => Self::Is(path(&data.key), json(&data.value)),
            PushCondition::EventPropertyContains(data) => {
                Self::Contains(path(&data.key), json(&data.value))
            }
            PushCondition::ContainsDisplayName => Self::DisplayName,
            PushCondition::RoomMemberCount(data) => Self::Members(data.is),
            PushCondition::SenderNotificationPermission(data) => {
                Self::Permission(data.key.to_string())
            }
            PushCondition::ThreadSubscription(data) => Self::Thread(data.subscribed),
            _ => Self::Never,
        }
    }

    fn holds(&self, event: &Subject<'_>, place: &Place, reader: Reader<'_>) -> bool {
        match self {
            Self::Match(path, pattern) => {
                text_at(event, path).is_some_and(|text| pattern.fits(text))
            }
            Self::Body(pattern) => {
                let body = event.body();
                body.is_some_and(|(body, lower)| pattern.is_in(body, lower))
            }
            Self::Is(path, value) => match path.split_first() {
                Some((first, rest)) if first == "content" => at(event, rest) == Some(value),
                _ => value.is_string() && text_at(event, path) == value.as_str(),
            },
            Self::Contains(path, value) => {
                let inside = path.split_first().filter(|(first, _)| *first == "content");
                let list = inside.and_then(|(_, rest)| at(event, rest)?.as_array());
                list.is_some_and(|list| list.contains(value))
            }
            Self::DisplayName => {
                let name = reader.display_name.map(str::to_lowercase);
                let body = event.body();
                body.zip(name)
                    .is_some_and(|((_, lower), name)| has_words(lower, &name))
            }
            Self::Members(count) => {
                let members = u32::try_from(place.members).unwrap_or(u32::MAX);
                count.contains(&members.into())
            }
            Self::Permission(kind) => place.lets_notify(kind),
            Self::Room(room_id) => event.pdu.room_id == room_id.as_str(),
            Self::Sender(user_id) => event.pdu.sender == user_id.as_str(),
            Self::Thread(subscribed) => place.in_thread && reader.subscribed == *subscribed,
            Self::Unsaid => !event.says_mentions(),
            Self::Never => false,
        }
    }
}

/// Splits a path at its dots; `\.` is a dot of a name, `\\` a backslash (specification,
/// "Dot-separated property paths").
fn path(key: &str) -> Path {
    let mut parts = vec![String::new()];
    let mut chars = key.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = chars
            .peek()
            .copied()
            .filter(|next| ['.', '\\'].contains(next));
        match (c, escaped) {
            ('.', _) => parts.push(String::new()),
            (c, next) => {
                if let Some(part) = parts.last_mut() {
                    part.push(next.filter(|_| c == '\\').unwrap_or(c));
                }
                if c == '\\' && next.is_some() {
                    chars.next();
                }
            }
        }
    }
    parts
}

/// A value inside content.
fn at<'a>(event: &'a Subject<'_>, path: &[String]) -> Option<&'a Value> {
    let mut parts = path.iter();
    parts.try_fold(event.content(), |value, part| value.as_object()?.get(part))
}

/// A string of an event.
fn text_at<'a>(event: &'a Subject<'_>, path: &[String]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    if first == "content" {
        return at(event, rest)?.as_str();
    }
    let pdu = event.pdu;
    match (&**first, rest) {
        ("type", []) => Some(&event.kind),
        ("sender", []) => Some(pdu.sender.as_str()),
        ("room_id", []) => Some(pdu.room_id.as_str()),
        ("event_id", []) => Some(pdu.event_id.as_str()),
        ("state_key", []) => pdu.state_key.as_deref(),
        _ => None,
    }
}

fn json(value: &ScalarJsonValue) -> Value {
    match value {
        ScalarJsonValue::Bool(value) => Value::Bool(*value),
        ScalarJsonValue::Integer(value) => Value::from(i64::from(*value)),
        ScalarJsonValue::String(value) => Value::String(value.clone()),
        ScalarJsonValue::Null => Value::Null,
    }
}

#[cfg(test)]
mod tests;
