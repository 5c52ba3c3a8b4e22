/** The one error that users see: bad input, said in one line (what, where, what to do). */

export class SymptomChatError extends Error {}
