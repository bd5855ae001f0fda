//! Rules that everybody has: those of the specification, and those for polls.

use ruma::{
    UserId,
    push::{
        Action, ConditionalPushRule, ConditionalPushRuleInit, EventMatchConditionData,
        PredefinedOverrideRuleId, PushCondition, RoomMemberCountConditionData, RoomMemberCountIs,
        Ruleset, SoundTweakValue, Tweak,
    },
    user_id,
};

use super::Rules;

/// The rules that everybody has (specification v1.19, "Predefined rules"; MSC3930). `threads`: with
/// those that ask for subscriptions to threads (MSC4306).
pub fn of(user: &UserId, threads: bool) -> Ruleset {
    let mut rules = Ruleset::server_default(user);
    if !threads {
        rules.postcontent.clear();
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
pub fn for_everybody(threads: bool) -> Rules {
    let mut set = of(user_id!("@nobody:invalid"), threads);
    let personal = [
        PredefinedOverrideRuleId::IsUserMention,
        PredefinedOverrideRuleId::InviteForMe,
    ];
    set.override_
        .retain(|rule| !personal.iter().any(|id| rule.rule_id == id.as_str()));
    Rules::new(&set)
}
