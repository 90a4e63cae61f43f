-- Removes members that were left under the number of this host.
-- ARGV: 3 the number, 4 how many at once
-- Returns 1 if there are no more, 2 if there may be, 0 if the number is not this host's; and the removed ones.

if redis.call('GET', key('lease', ARGV[3])) ~= ARGV[2] then
    return {0, {}}
end
local removed, is_done = remove_members(tonumber(ARGV[3]), tonumber(ARGV[4]))
return {is_done and 1 or 2, removed}
