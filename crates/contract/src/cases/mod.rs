//! The cases, and the one list of them.

use crate::run::Case;

mod amend;
mod cancel;
mod client;
mod counting;
mod election;
mod examination;
mod exclusion;
mod fence;
mod guarantees;
mod job;
mod keys;
mod lapse;
mod limiter;
mod line;
mod loss;
mod many;
mod process;
mod random;
mod records;
mod rules;
mod shares;
mod stale;
mod trouble;

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
                rule_8_a_ttl_below_the_minimum_is_refused_by_name;
            line:
                twenty_waiters_are_served_in_order,
                asking_again_keeps_the_place_and_the_fence,
                leaving_the_line_keeps_the_order_of_the_others,
                a_hand_over_wakes_the_waiter,
                a_change_before_the_wait_began_is_not_slept_through,
                an_impatient_waiter_can_be_woken_again_and_again,
                the_line_is_seen_as_it_is, a_waiter_is_renewed_only_where_it_stands_in_line;
            lapse:
                an_unrenewed_hold_lapses_but_not_before_its_ttl,
                a_renewed_hold_goes_on,
                rule_1_nothing_revives_a_lapsed_hold,
                a_lapsed_hold_is_lost_even_if_nobody_came,
                a_crowd_of_dead_waiters_costs_one_ttl,
                a_release_passes_over_the_dead_in_one_step,
                closing_a_session_ends_all_its_claims_at_once,
                an_ended_session_claims_nothing_more,
                rule_6_a_late_enter_leaves_no_lasting_ghost;
            stale:
                rule_1_nobody_leaves_for_another,
                rule_1_a_second_leave_does_not_free_the_next_holder,
                a_renewal_of_what_was_left_says_lost,
                a_revoked_hold_is_free_and_its_owner_learns_it,
                a_revoked_waiter_is_out_of_the_line,
                revoking_takes_the_right_claim_on_the_right_key,
                a_hold_ended_behind_our_back_is_lost,
                a_waiter_gets_what_was_ended_behind_our_back;
            fence:
                rule_5_fences_grow_through_every_way_a_hold_ends,
                rule_5_fences_grow_through_hand_overs,
                rule_5_fences_grow_through_reopening,
                rule_5_fences_grow_through_a_restart_of_the_server,
                rule_5_fences_of_concurrent_grants_are_unique;
            counting:
                a_semaphore_admits_its_limit_and_does_not_overtake,
                readers_share_and_a_writer_is_alone,
                a_lapsed_reader_frees_the_writer,
                claims_that_disagree_on_the_limit_are_refused,
                a_mutex_is_a_writer_by_another_name,
                a_semaphore_of_a_hundred_never_exceeds_its_limit;
            amend:
                a_hold_takes_another_note_and_keeps_its_fence,
                a_writer_that_reads_on_lets_readers_in_without_a_gap,
                nobody_amends_what_they_do_not_hold;
            records:
                a_record_is_read_as_it_was_written,
                a_record_changes_only_from_the_version_that_was_read,
                increments_of_a_record_are_not_lost,
                a_record_is_written_under_a_hold_only_while_it_is_held,
                a_record_is_kept_for_its_time,
                records_and_lines_leave_each_other_alone,
                dropped_calls_on_a_record_leave_the_store_usable;
            shares:
                a_client_of_a_store_that_does_not_count_is_told_at_once,
                readers_share_and_a_waiting_writer_is_not_overtaken,
                a_writer_downgrades_without_a_gap,
                a_downgrade_whose_reply_got_lost_is_one,
                a_downgrade_after_the_loss_says_lost,
                a_note_changes_under_a_guard,
                a_semaphore_lets_in_its_limit_and_names_another,
                the_number_of_stored_slots_changes_while_they_are_held,
                locking_again_inside_a_run_is_an_error_and_not_a_hang,
                a_task_that_waits_for_itself_is_warned_and_no_other_is;
            many:
                claims_entered_in_one_step_all_hold_or_none_is_left,
                a_refusal_of_claims_that_were_granted_before_ends_none_of_them,
                a_session_that_ended_enters_no_lines_in_one_step,
                shares_are_entered_in_one_step_beside_others,
                many_keys_are_locked_all_or_nothing,
                when_one_of_many_keys_fails_the_others_are_given_back,
                a_wait_for_many_keys_outlasts_trouble,
                a_key_that_was_lost_before_the_last_was_granted_is_told,
                many_keys_in_any_order_do_not_deadlock,
                many_locks_through_a_lost_reply_are_the_same_claims,
                many_locks_that_land_after_their_caller_gave_up_are_left,
                many_locks_hold_from_before_they_were_asked_for,
                tries_of_many_keys_never_overlap,
                of_two_who_try_the_same_keys_one_gets_them;
            election:
                one_leads_and_the_next_follows,
                a_leader_proclaims_without_losing_office,
                an_observer_is_told_of_every_leader,
                an_observer_tells_of_changes_in_their_order_and_once,
                an_observer_that_missed_changes_says_how_many,
                who_loses_the_office_before_taking_it_campaigns_again,
                an_observer_outlasts_trouble_and_tells_of_it,
                an_office_whose_record_is_of_something_else_is_refused;
            job:
                of_many_clients_one_does_the_job,
                a_job_whose_runner_gave_up_is_tried_again,
                a_job_is_not_written_down_by_who_lost_its_lock,
                a_job_that_failed_is_tried_as_often_as_wanted,
                a_job_through_lost_replies_is_done_once,
                a_late_beginning_does_not_undo_the_end_of_a_job,
                a_job_that_is_written_down_is_done_whatever_its_release_finds,
                jobs_that_begin_together_are_all_listed,
                jobs_are_listed_with_their_last_runs,
                what_is_forgotten_begins_anew;
            cancel:
                rule_6_a_dropped_enter_is_undone_by_a_leave,
                rule_6_a_dropped_enter_alone_lasts_one_ttl_at_most,
                a_dropped_enter_can_be_asked_again,
                a_dropped_leave_can_be_asked_again,
                a_dropped_wait_is_not_deaf_afterwards,
                other_dropped_calls_leave_the_store_usable;
            keys:
                hostile_keys_are_keys_like_any_other,
                keys_are_listed_by_literal_prefix,
                a_name_that_the_store_keeps_for_itself_is_refused_or_free,
                owners_and_notes_come_back_verbatim,
                ten_thousand_keys_at_once;
            random:
                random_operations_agree_with_the_rule;
            client:
                a_hundred_tasks_lock_one_at_a_time,
                a_refused_attempt_says_who_holds,
                a_client_that_locks_twice_waits_for_itself,
                dropping_a_guard_releases_it,
                closing_a_client_frees_everything_and_loses_its_guards,
                a_timed_out_lock_leaves_nothing,
                a_release_says_whether_the_hold_was_still_ours,
                a_revoked_holder_learns_it_at_once,
                a_guard_outlives_many_ttls_and_renewals_are_shared,
                a_detached_hold_is_in_the_hands_of_who_has_its_token;
            loss:
                rule_3_loss_comes_before_the_deadline_whatever_the_store_does,
                rule_3_loss_comes_before_the_deadline_with_the_server_stopped_or_gone,
                rule_3_and_4_the_first_check_after_a_stop_fails,
                rule_4_check_holds_until_the_loss_and_never_after,
                rule_4_run_drops_its_future_on_loss,
                rule_7_max_hold_ends_what_renewals_would_keep,
                rule_7_renewal_stops_with_the_last_handle,
                the_last_handle_frees_everything_at_once;
            trouble:
                rule_2_a_late_grant_is_no_grant_and_is_given_back,
                rule_2_a_slow_answer_moves_no_deadline,
                rule_2_a_hand_over_counts_from_the_last_acknowledged_renewal,
                a_short_lease_is_renewed_before_the_guard_is_given_out,
                an_unknown_enter_is_resolved_by_its_claim,
                an_unknown_enter_does_not_stand_in_line_twice,
                a_refusal_that_got_lost_leaves_nothing,
                a_release_whose_reply_got_lost_is_a_release,
                a_release_whose_reply_got_lost_is_one_until_the_deadline,
                a_dropped_guard_is_released_through_trouble,
                a_renewal_that_crosses_the_release_revives_nothing,
                a_waiter_outlasts_trouble_and_says_so,
                a_waiter_outlasts_the_server,
                a_client_whose_session_lapsed_opens_another;
            limiter:
                limiters_share_one_limit_exactly_at_low_demand,
                limiters_together_stay_within_the_bound,
                a_hundred_thousand_checks_cost_a_few_dozen_calls,
                an_unknown_write_of_a_limiter_counts_as_taken,
                a_limiter_that_another_was_faster_than_decides_anew,
                permits_that_arrive_after_a_pause_are_not_used,
                a_limiter_that_stays_open_decides_alone_while_the_store_is_away,
                a_limiter_that_stays_closed_allows_nothing_while_the_store_is_away,
                limiters_that_disagree_on_the_rate_count_the_same_permits,
                a_forgotten_record_gives_no_more_than_the_burst,
                a_limiter_refuses_what_is_not_its_own,
                waiting_for_permits_is_in_order_and_can_be_given_up,
                processes_together_stay_within_the_bound;
            examination:
                an_examination_measures_and_judges,
                an_examination_leaves_nothing_and_disturbs_nobody,
                a_lock_that_cannot_be_taken_is_a_finding,
                rule_9_an_examination_shows_no_secret,
                an_examination_of_a_dead_server_is_an_error;
            rules:
                rule_6_dropping_a_lock_at_any_await_leaves_nothing,
                rule_6_dropping_a_release_at_any_await_releases,
                rule_6_dropping_a_run_at_any_await_releases,
                rule_6_an_enter_that_lands_after_its_caller_gave_up_is_left,
                rule_8_bad_timing_is_refused_at_construction,
                rule_9_no_token_and_no_password_is_ever_shown;
            guarantees:
                what_is_demanded_is_there_or_all_of_it_that_is_not_is_named,
                a_hold_outlives_a_crash_of_the_server_where_that_is_promised;
            process:
                processes_hold_one_at_a_time_as_far_as_the_store_reaches,
                a_killed_holder_frees_its_hold,
                a_killed_waiter_does_not_hold_up_the_line,
                a_stopped_holder_finds_its_hold_lost,
                processes_in_turmoil_keep_the_rules;
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
