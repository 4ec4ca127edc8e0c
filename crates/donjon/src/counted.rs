//! A limit of callers that sees what was counted.

use donjon_core::{
    LlmRequest,
    shape::{Admission, Admit, Check},
};
use donjon_rate_limit::{Limiter, RateLimitLayer};
use donjon_token_count::{TokenCountLayer, TokenFigure};

/// Puts the tokens on a request and then asks the limit: both in one place, since each service more would
/// make every call's future larger.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    figure: Option<TokenFigure>,
    limit: Limiter,
}

impl Counted {
    pub(crate) fn new(limit: &RateLimitLayer, tokens: Option<&TokenCountLayer>) -> Self {
        Self {
            figure: tokens.map(TokenCountLayer::figure),
            limit: limit.admitter(),
        }
    }
}

impl Admit for Counted {
    type Permit = <Limiter as Admit>::Permit;
    type Wait = <Limiter as Admit>::Wait;

    #[inline]
    fn admit(&self, request: &mut LlmRequest) -> Admission<Self::Permit, Self::Wait> {
        match self.figure.check(request) {
            Ok(_) => self.limit.admit(request),
            Err(refused) => Admission::No(refused),
        }
    }
}
