//! How far the rules of a user are from the default ones: nearly everybody is counted by the
//! counters of the room, whatever the number of members.

use std::collections::BTreeMap;

use ruma::push::{ConditionalPushRule, PredefinedOverrideRuleId, PushCondition, Ruleset};

use super::Effect;

/// How the unread events of a room are counted for a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i16)]
pub enum Class {
    /// As the default rules say.
    #[default]
    Default = 0,
    /// Nothing counts.
    Mute = 1,
    /// What highlights counts.
    Mentions = 2,
    /// Each event is looked at with the user's own rules.
    Custom = 9,
}

/// The class of a user in every room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// In rooms that are not named below.
    pub elsewhere: Class,
    /// By room id.
    pub rooms: BTreeMap<String, Class>,
}

/// Classes that follow from rules. `ignores`: the user ignores somebody.
/// `given`: the default rules of the user.
pub fn of(given: &Ruleset, set: &Ruleset, ignores: bool) -> Classes {
    let master = |rule: &&ConditionalPushRule| {
        rule.rule_id == PredefinedOverrideRuleId::Master.as_str() && rule.enabled
    };
    if set.override_.iter().any(|rule| master(&rule)) {
        let silent = set.override_.iter().find(master);
        let silent = silent.is_some_and(|rule| !Effect::of(&rule.actions).notify);
        let elsewhere = if silent { Class::Mute } else { Class::Custom };
        return Classes {
            elsewhere,
            rooms: BTreeMap::new(),
        };
    }
    let mut rooms = BTreeMap::new();
    let mut custom = ignores || !has_default_effects(given, set);
    custom |= set.content.iter().any(|rule| rule.enabled && !rule.default)
        || set.sender.iter().any(|rule| rule.enabled)
        || set
            .underride
            .iter()
            .any(|rule| rule.enabled && !rule.default);
    let mut before_others = true;
    let own = set
        .override_
        .iter()
        .filter(|rule| rule.enabled && !rule.default);
    for rule in own {
        let quiet = !Effect::of(&rule.actions).notify;
        match only_room(rule) {
            // The first that applies decides: what comes later for the room does not matter.
            Some(room) if !rooms.contains_key(room) => {
                let class = if quiet && before_others {
                    Class::Mute
                } else {
                    Class::Custom
                };
                rooms.insert(room.to_owned(), class);
            }
            Some(_) => {}
            None => {
                custom = true;
                before_others = false;
            }
        }
    }
    for rule in set.room.iter().filter(|rule| rule.enabled) {
        let quiet = !Effect::of(&rule.actions).notify;
        let class = if quiet && !custom {
            Class::Mentions
        } else {
            Class::Custom
        };
        rooms.entry(rule.rule_id.to_string()).or_insert(class);
    }
    let elsewhere = if custom {
        Class::Custom
    } else {
        Class::Default
    };
    Classes { elsewhere, rooms }
}

/// The room of a rule that asks for nothing but a room: how clients mute one.
fn only_room(rule: &ConditionalPushRule) -> Option<&str> {
    match &*rule.conditions {
        [PushCondition::EventMatch(data)]
            if data.key == "room_id" && !data.pattern.contains(['*', '?']) =>
        {
            Some(&data.pattern)
        }
        _ => None,
    }
}

/// Whether the default rules count as they do for everybody; how they sound does not matter.
fn has_default_effects(given: &Ruleset, set: &Ruleset) -> bool {
    let same = |theirs: Option<&ConditionalPushRule>, ours: &ConditionalPushRule| {
        theirs.is_some_and(|theirs| {
            theirs.enabled == ours.enabled
                && Effect::of(&theirs.actions) == Effect::of(&ours.actions)
        })
    };
    let id = |rule: &ConditionalPushRule| rule.rule_id.clone();
    given
        .override_
        .iter()
        .all(|rule| same(set.override_.get(&*id(rule)), rule))
        && given.content.iter().all(|ours| {
            let theirs = set.content.get(&*ours.rule_id);
            theirs.is_some_and(|theirs| {
                let effects = [theirs, ours].map(|rule| Effect::of(&rule.actions));
                theirs.enabled == ours.enabled && effects[0] == effects[1]
            })
        })
        && given
            .postcontent
            .iter()
            .all(|rule| same(set.postcontent.get(&*id(rule)), rule))
        && given
            .underride
            .iter()
            .all(|rule| same(set.underride.get(&*id(rule)), rule))
}
