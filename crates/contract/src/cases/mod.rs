//! The cases, and the one list of them.

use crate::run::Case;

mod cancel;
mod counting;
mod exclusion;
mod fence;
mod keys;
mod lapse;
mod line;
mod random;
mod stale;

/// Calls the macro `$then` with every case: the one place where a case is listed.
#[doc(hidden)]
#[macro_export]
macro_rules! each_case {
    ([$($then:tt)+] $with:tt) => {
        $($then)+! {
            $with
            exclusion:
                one_holds_and_the_other_is_told_by_whom,
                a_refused_try_leaves_nothing,
                a_hundred_contenders_hold_one_at_a_time,
                two_claims_of_one_session_are_two,
                keys_do_not_exclude_each_other,
                a_ttl_below_the_minimum_is_refused_by_name;
            line:
                twenty_waiters_are_served_in_order,
                asking_again_keeps_the_place_and_the_fence,
                leaving_the_line_keeps_the_order_of_the_others,
                a_hand_over_wakes_the_waiter,
                a_change_before_the_wait_began_is_not_slept_through,
                an_impatient_waiter_can_be_woken_again_and_again,
                the_line_is_seen_as_it_is;
            lapse:
                an_unrenewed_hold_lapses_but_not_before_its_ttl,
                a_renewed_hold_goes_on,
                nothing_revives_a_lapsed_hold,
                a_lapsed_hold_is_lost_even_if_nobody_came,
                a_crowd_of_dead_waiters_costs_one_ttl,
                a_release_passes_over_the_dead_in_one_step,
                closing_a_session_ends_all_its_claims_at_once,
                an_ended_session_claims_nothing_more,
                a_late_enter_leaves_no_lasting_ghost;
            stale:
                nobody_leaves_for_another,
                a_second_leave_does_not_free_the_next_holder,
                a_renewal_of_what_was_left_says_lost,
                a_revoked_hold_is_free_and_its_owner_learns_it,
                a_revoked_waiter_is_out_of_the_line,
                revoking_takes_the_right_claim_on_the_right_key,
                a_hold_ended_behind_our_back_is_lost,
                a_waiter_gets_what_was_ended_behind_our_back;
            fence:
                fences_grow_through_every_way_a_hold_ends,
                fences_grow_through_hand_overs,
                fences_grow_through_reopening,
                fences_grow_through_a_restart_of_the_server,
                fences_of_concurrent_grants_are_unique;
            counting:
                a_semaphore_admits_its_limit_and_does_not_overtake,
                readers_share_and_a_writer_is_alone,
                a_lapsed_reader_frees_the_writer,
                the_smallest_limit_in_line_counts,
                a_semaphore_of_a_hundred_never_exceeds_its_limit;
            cancel:
                a_dropped_enter_is_undone_by_a_leave,
                a_dropped_enter_alone_lasts_one_ttl_at_most,
                a_dropped_enter_can_be_asked_again,
                a_dropped_leave_can_be_asked_again,
                a_dropped_wait_is_not_deaf_afterwards,
                other_dropped_calls_leave_the_store_usable;
            keys:
                hostile_keys_are_keys_like_any_other,
                keys_are_listed_by_literal_prefix,
                owners_and_notes_come_back_verbatim,
                ten_thousand_keys_at_once;
            random:
                random_operations_agree_with_the_rule;
        }
    };
}

macro_rules! list {
    ([] $($module:ident: $($case:ident),+;)+) => {
        /// Every case of the suite.
        pub const CASES: &[Case] = &[$($(
            Case {
                name: stringify!($case),
                run: |bench| Box::pin($module::$case(bench)),
            },
        )+)+];
    };
}

each_case! { [list] [] }
