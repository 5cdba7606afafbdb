//! `minimal`: replies with records leave out the authority and additional sections. Negative answers,
//! referrals and failures keep them, because they say something there.

use hickory_proto::op::ResponseCode;

use crate::answer::Answer;

/// Leaves out what is not needed.
pub(crate) fn minimize(answer: &mut Answer) {
    if answer.rcode == ResponseCode::NoError && !answer.answers.is_empty() {
        answer.authority.clear();
        answer.additional.clear();
    }
}

#[cfg(test)]
mod tests {
    use crate::record::Record;

    use super::*;

    #[test]
    fn dns_minimal_keeps_what_says_something() {
        let record = Record::address("a.test".parse().unwrap(), 5, [192, 0, 2, 1].into());
        for (rcode, has_answer, kept) in [
            (ResponseCode::NoError, true, 0),
            (ResponseCode::NoError, false, 2),
            (ResponseCode::NXDomain, true, 2),
            (ResponseCode::ServFail, false, 2),
        ] {
            let mut answer = Answer::local(rcode);
            answer.answers.extend(has_answer.then(|| record.clone()));
            answer.authority.push(record.clone());
            answer.additional.push(record.clone());
            minimize(&mut answer);
            let sections = answer.authority.len() + answer.additional.len();
            assert_eq!(sections, kept, "{rcode} {has_answer}");
        }
    }
}
