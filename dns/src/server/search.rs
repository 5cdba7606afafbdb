//! Following the search path of a pod: see [`crate::autopath`].

use std::rc::Rc;

use hickory_proto::op::ResponseCode;

use super::{Front, Wait};
use crate::autopath::Search;
use crate::chain::{Asked, Chain, Reply, unpack};
use crate::message::Question;

impl Front {
    /// The answer to a query, or what has to be waited for. If its name is the first of the client's
    /// search path, the rest of the path is tried, too.
    pub(super) fn look_up(&self, chain: &Rc<Chain>, asked: &Asked) -> Result<Reply, Box<Wait>> {
        match chain.search(&self.reader.load(), asked) {
            None => self.walk(chain, asked, None),
            Some(search) => self.follow(search, chain, asked),
        }
    }

    /// Goes on after the name that was waited for.
    pub(super) fn go_on(
        &self,
        search: Box<Search>,
        reply: Reply,
        chain: &Rc<Chain>,
        asked: &Asked,
    ) -> Result<Reply, Box<Wait>> {
        match self.step(search, reply, asked) {
            Ok(reply) => Ok(reply),
            Err(search) => self.follow(search, chain, asked),
        }
    }

    fn follow(
        &self,
        mut search: Box<Search>,
        chain: &Rc<Chain>,
        asked: &Asked,
    ) -> Result<Reply, Box<Wait>> {
        loop {
            let question = current(&search, asked);
            let other = self.way_of(&question).map(|way| way.chain);
            let chain = other.as_ref().unwrap_or(chain);
            match self.walk(chain, asked, Some(question)) {
                Ok(reply) => match self.step(search, reply, asked) {
                    Ok(reply) => return Ok(reply),
                    Err(next) => search = next,
                },
                Err(mut wait) => {
                    wait.search = Some(search);
                    return Err(wait);
                }
            }
        }
    }

    /// The reply that ends the search, or the search with its next name.
    fn step(
        &self,
        mut search: Box<Search>,
        reply: Reply,
        asked: &Asked,
    ) -> Result<Reply, Box<Search>> {
        let mut answer = match reply {
            Reply::Plain(answer) => answer,
            Reply::Packed(served) => unpack(&served.packed, search.name(), served.serving),
        };
        if answer.rcode == ResponseCode::NXDomain {
            let question = current(&search, asked);
            let way = self.way_of(&question);
            if !way.is_some_and(|way| way.chain.has_other_address(asked, &question)) {
                return match search.next(answer) {
                    Some(first) => Ok(Reply::Plain(first)),
                    None => Err(search),
                };
            }
            answer.rcode = ResponseCode::NoError;
        }
        if !search
            .name()
            .eq_ignore_case(&asked.rewritten().question.name)
        {
            asked.counts.autopath();
        }
        Ok(Reply::Plain(search.finish(answer)))
    }
}

/// What is asked for the name that is tried.
fn current(search: &Search, asked: &Asked) -> Question {
    Question {
        name: search.name().clone(),
        ..asked.rewritten().question.clone()
    }
}
