//! Rules that everybody has: those of the specification, and those for polls.

use ruma::{
    UserId,
    push::{
        Action, ConditionalPushRule, ConditionalPushRuleInit, EventMatchConditionData,
        HighlightTweakValue, PatternedPushRuleInit, PredefinedOverrideRuleId, PushCondition,
        RoomMemberCountConditionData, RoomMemberCountIs, Ruleset,
        SenderNotificationPermissionConditionData, SoundTweakValue, Tweak,
    },
    user_id,
};

use super::Rules;

/// What the operator adds to the rules that everybody has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added {
    /// Rules that ask for subscriptions to threads (MSC4306).
    pub threads: bool,
    /// Rules that look for names in texts which do not say whom they mention. Version 1.17 took them
    /// out of the specification; some bots and bridges do not say it.
    pub names: bool,
}

/// The display name of the user is in the text.
const DISPLAY_NAME: &str = ".m.rule.contains_display_name";
/// The localpart of the user's id is in the text.
const USER_NAME: &str = ".m.rule.contains_user_name";
/// `@room` is in the text.
const ROOM: &str = ".m.rule.roomnotif";

/// Whether a rule looks for names in texts.
pub(super) fn looks_for_names(rule_id: &str) -> bool {
    [DISPLAY_NAME, USER_NAME, ROOM].contains(&rule_id)
}

/// The rules that everybody has (specification v1.19, "Predefined rules"; MSC3930), and what is added.
pub fn of(user: &UserId, added: Added) -> Ruleset {
    let mut rules = Ruleset::server_default(user);
    if !added.threads {
        rules.postcontent.clear();
    }
    if added.names {
        add_names(&mut rules, user);
    }
    rules
        .override_
        .insert(poll("poll_response", "response", false, Vec::new()));
    for part in ["start", "end"] {
        let sound = Action::SetTweak(Tweak::Sound(SoundTweakValue::Default));
        let direct = vec![Action::Notify, sound];
        let (two, any) = (format!("poll_{part}_one_to_one"), format!("poll_{part}"));
        rules.underride.insert(poll(&two, part, true, direct));
        rules
            .underride
            .insert(poll(&any, part, false, vec![Action::Notify]));
    }
    rules
}

/// Adds the rules that look for names in texts (specification v1.16).
fn add_names(rules: &mut Ruleset, user: &UserId) {
    let highlight = || Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes));
    let sound = Action::SetTweak(Tweak::Sound(SoundTweakValue::Default));
    let loud = vec![Action::Notify, sound, highlight()];
    #[expect(deprecated, reason = "that is what it is for")]
    let name = vec![PushCondition::ContainsDisplayName];
    let body = EventMatchConditionData::new("content.body".to_owned(), "@room".to_owned());
    let may = SenderNotificationPermissionConditionData::new("room".into());
    for (id, conditions, actions) in [
        (DISPLAY_NAME, name, loud.clone()),
        (
            ROOM,
            vec![body.into(), may.into()],
            vec![Action::Notify, highlight()],
        ),
    ] {
        let rule = ConditionalPushRuleInit {
            actions,
            default: true,
            enabled: true,
            rule_id: id.to_owned(),
            conditions,
        };
        rules.override_.insert(rule.into());
    }
    let rule = PatternedPushRuleInit {
        actions: loud,
        default: true,
        enabled: true,
        rule_id: USER_NAME.to_owned(),
        pattern: user.localpart().to_owned(),
    };
    rules.content.insert(rule.into());
}

/// A rule for events of polls. By `event_match`, as the clients know them, while MSC3930 would
/// compare the property: both say the same of a type.
fn poll(name: &str, part: &str, of_two: bool, actions: Vec<Action>) -> ConditionalPushRule {
    let kind = format!("org.matrix.msc3381.poll.{part}");
    let two = || RoomMemberCountConditionData::new(RoomMemberCountIs::from(ruma::uint!(2)));
    let mut conditions: Vec<PushCondition> = Vec::new();
    conditions.extend(of_two.then(|| two().into()));
    conditions.push(EventMatchConditionData::new("type".to_owned(), kind).into());
    ConditionalPushRuleInit {
        actions,
        default: true,
        enabled: true,
        rule_id: format!(".org.matrix.msc3930.rule.{name}"),
        conditions,
    }
    .into()
}

/// The default rules without those that name their user: what an event does for everybody who has
/// default rules.
pub fn for_everybody(added: Added) -> Rules {
    let mut set = of(user_id!("@nobody:invalid"), added);
    let personal = [
        PredefinedOverrideRuleId::IsUserMention.as_str().to_owned(),
        PredefinedOverrideRuleId::InviteForMe.as_str().to_owned(),
        DISPLAY_NAME.to_owned(),
    ];
    set.override_
        .retain(|rule| !personal.contains(&rule.rule_id));
    set.content.clear();
    Rules::new(&set)
}
