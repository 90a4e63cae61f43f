-- Removes members of a host that is gone, and marks its number, so that the host notices if it comes back.
-- ARGV: 3 the number, 4 how many at once
-- Returns 1 if there are no more, 2 if there may be, 0 if the host is not gone; and the removed ones.

if redis.call('EXISTS', key('lease', ARGV[3])) == 1 then
    return {0, {}}
end
-- Removing comes first: it is allowed when there is no memory left, and all that follows it then is, too.
local removed, is_done = remove_members(tonumber(ARGV[3]), tonumber(ARGV[4]))
if #removed > 0 then
    redis.call('SET', key('swept', ARGV[3]), '1')
end
return {is_done and 1 or 2, removed}
